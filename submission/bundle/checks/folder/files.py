"""FILE: kinds, names and first bytes of the files in the folder."""

from __future__ import annotations

import re
import stat
import unicodedata
from collections.abc import Iterator

from submission.bundle.checks.finding import Fault
from submission.bundle.manifest import SEGMENTER, SEGMENTER_FILES
from submission.bundle.untrusted.bundle_view import BundleView
from submission.bundle.untrusted.folder import MOST_ENTRIES
from submission.bundle.untrusted.strict_json import Unreadable
from submission.text.characters import BIDIRECTIONAL, CONTROLS, HIDDEN, character_name, printable

# What runs, or what unpickles into something that runs, when it is opened. `.bin` is how PyTorch pickles weights.
# fmt: off
CODE_SUFFIXES = frozenset({
    ".py", ".pyc", ".pyo", ".pyd", ".so", ".dylib", ".dll", ".exe", ".com", ".sh", ".bash", ".bat", ".cmd", ".ps1",
    ".js", ".mjs", ".jar", ".class", ".wasm", ".pl", ".rb", ".lua", ".bin", ".pt", ".pth", ".ckpt", ".pkl",
    ".pickle", ".joblib", ".dill", ".npy", ".npz", ".h5", ".hdf5", ".keras", ".onnx", ".msgpack", ".whl", ".egg",
    ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar",
})
# fmt: on
# First bytes -> what they start. Archives are here because they hide what is in them (and `torch.save` writes one).
CODE_HEADS: dict[bytes, str] = {
    b"\x7fELF": "a Linux program",
    b"\xfe\xed\xfa\xce": "a macOS program",
    b"\xfe\xed\xfa\xcf": "a macOS program",
    b"\xce\xfa\xed\xfe": "a macOS program",
    b"\xcf\xfa\xed\xfe": "a macOS program",
    b"\xca\xfe\xba\xbe": "a Java class or macOS program",
    b"\x00asm": "a WebAssembly program",
    b"#!": "a script",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x93NUMPY": "a NumPy array, which may hold a pickle",
    b"\x89HDF": "an HDF5 file",
    b"PK\x03\x04": "a ZIP archive or a torch.save file",
    b"PK\x05\x06": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"GGUF": "a GGUF model",
}
# Protocols 0 and 1 have no magic bytes: they begin with a table or list, or a name from a common module.
OLD_PICKLE = re.compile(
    rb"\([dlit]p\d+\n|c(?:os|posix|nt|sys|subprocess|runpy|builtins|__builtin__|copy_?reg|collections|torch[\w.]*|numpy[\w.]*)"
    rb"\n\w+\n"
)
TAR_MARK_AT = 257
TOP_FILES = frozenset({"manifest.json", "campaign.json", "recipe.json", "scores.json", "efficiency.json"})
MODEL_FILES = frozenset({"config.json", "model.safetensors.index.json", "README.md", "LICENSE", "NOTICE"})
"""What the model folder may hold besides weights and the files that its family names."""
KNOWN_FOLDERS = frozenset({"model", SEGMENTER, "segments", "description"})
TEXT_FILES = ("model/LICENSE", "model/NOTICE")
"""Texts of the base model's authors, which nothing is compared with."""
MOST_LICENCE_BYTES = 256 << 10
LONGEST_NAME_BYTES = 200
RESERVED_NAME = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
"""What Windows takes for a device, whatever the suffix."""
SPARSE_FROM_BYTES = 64 << 10


def link(view: BundleView) -> Iterator[Fault]:
    """Put the file itself in place of the link; a link leads out of the bundle as soon as it is moved."""
    for entry in view.entries:
        if entry.kind == "link":
            yield printable(entry.path), "symbolic link"


def hard_link(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle with `cp -r` and check the copy: a file with a second name changes whenever that one does, and
    the second name may lie anywhere.
    """
    for entry in view.files.values():
        if entry.names > 1:
            yield printable(entry.path), f"has {entry.names:,} names (hard links)"


def sparse_file(view: BundleView) -> Iterator[Fault]:
    """Write the file again from the packed model: most of its bytes were never written, and read as zeros."""
    for entry in view.files.values():
        if entry.stored_bytes < entry.size_bytes // 2 and entry.size_bytes >= SPARSE_FROM_BYTES:
            # A file system may compress, or not have stored yet; so holes count only where it names them.
            holes = view.hole_bytes(entry.path)
            if holes > entry.size_bytes // 2:
                yield printable(entry.path), f"{holes:,} of its {entry.size_bytes:,} bytes are holes"


def special_file(view: BundleView) -> Iterator[Fault]:
    """Remove it; a bundle holds folders and regular files only, no devices, pipes or sockets."""
    for entry in view.entries:
        if entry.kind == "other":
            yield printable(entry.path), "neither a regular file nor a folder"


def code_by_name(view: BundleView) -> Iterator[Fault]:
    """Remove it; a bundle is data: weights as safetensors, everything else as JSON or text."""
    for path in view.files:
        if suffix_of(path) in CODE_SUFFIXES:
            yield printable(path), f"{suffix_of(path)} holds code, a pickle or an archive"


def code_by_content(view: BundleView) -> Iterator[Fault]:
    """Remove it; whatever it is called, it holds code, a pickle or an archive, and a bundle is data."""
    for path in view.files:
        # The first eight bytes of safetensors are a length: any bytes at all, and WEI01 reads them.
        if suffix_of(path) == ".safetensors":
            continue
        try:
            head = view.head(path)
        except Unreadable:
            continue
        for start, kind in CODE_HEADS.items():
            if head.startswith(start):
                yield printable(path), f"starts like {kind}"
        if OLD_PICKLE.match(head):
            yield printable(path), "starts like a pickle"
        if head[TAR_MARK_AT:].startswith(b"ustar"):
            yield printable(path), "starts like a tar archive"
        if head.startswith(b"MZ") and b"\0" in head:  # a sentence may begin with these two letters
            yield printable(path), "starts like a Windows program"


def unsafe_name(view: BundleView) -> Iterator[Fault]:
    """Rename it with letters, digits, `.`, `_` and `-`: other systems cannot store, or misread, this name."""
    for entry in view.entries:
        name = entry.path.rpartition("/")[2]
        if len(name) > LONGEST_NAME_BYTES or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*(?<!\.)", name):
            what = "file name with characters other than ASCII letters, digits, '.', '_' and '-'"
            yield printable(entry.path), f"{what}, or with '-' or '.' at its beginning"
        elif RESERVED_NAME.fullmatch(name):
            yield printable(entry.path), "name of a device on Windows"


def changed_identity(view: BundleView) -> Iterator[Fault]:
    """Copy the bundle with `cp -r` and check the copy, or take the bit away (`chmod 644`): data needs none."""
    for entry in view.files.values():
        if entry.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX):
            yield printable(entry.path), f"has the mode {entry.mode:o}: set-user-ID, set-group-ID or sticky bit"


def other_than_text(view: BundleView) -> Iterator[Fault]:
    """Put the base model's own licence or notice there, as UTF-8, or remove the file."""
    for path in TEXT_FILES:
        if path in view.files:
            try:
                data = view.read(path, MOST_LICENCE_BYTES).decode("utf-8").removeprefix("\ufeff")
            except (Unreadable, UnicodeDecodeError) as error:
                yield path, printable(str(error), 200)
                continue
            hidden = next((c for c in data if (c in CONTROLS and c != "\t") or c in BIDIRECTIONAL or c in HIDDEN), "")
            if hidden:
                yield path, f"holds {character_name(hidden)}"


def colliding_names(view: BundleView) -> Iterator[Fault]:
    """Rename one of them: on a file system that ignores case or Unicode form, one overwrites the other."""
    seen: dict[str, str] = {}
    for entry in view.entries:
        folded = unicodedata.normalize("NFKC", entry.path.casefold()).casefold()
        if folded in seen:
            yield printable(entry.path), f"differs from {printable(seen[folded])} in case or Unicode form only"
        seen[folded] = entry.path


def unreadable(view: BundleView) -> Iterator[Fault]:
    """Make every file and folder readable (mode 644 and 755) and copy the bundle again."""
    entries = view.entries  # listing fills view.unlisted
    for path, reason in view.unlisted:
        yield printable(path), f"folder cannot be listed ({reason})"
    for entry in entries:
        if entry.kind == "file":
            try:
                view.head(entry.path)
            except Unreadable as error:
                yield printable(entry.path), f"cannot be read ({error})"


def misplaced(view: BundleView) -> Iterator[Fault]:
    """Remove it; a bundle holds the model, the segmenter, outputs, segments, descriptions and five JSON files only."""
    for path in view.files:
        folder, _, name = path.rpartition("/")
        known = (
            path in TOP_FILES
            or folder in {"segments", "description"}  # SET02 reports other names there
            or is_pair(folder)
            or (folder == SEGMENTER and name in SEGMENTER_FILES)
            or (
                folder == "model"
                and (name in MODEL_FILES or name in view.family.files or name.endswith(".safetensors"))
            )
        )
        if not known and suffix_of(path) not in CODE_SUFFIXES:
            yield printable(path), "this file does not belong in a bundle"
    holding = {path.rpartition("/")[0] for path in view.files}
    for entry in view.entries:
        empty = not any(f"{folder}/".startswith(f"{entry.path}/") for folder in holding)
        if entry.kind == "folder" and empty and entry.path not in KNOWN_FOLDERS and not view.unlisted:
            yield printable(entry.path), "this empty folder does not belong in a bundle"


def overfull(view: BundleView) -> Iterator[Fault]:
    """Give the folder that `python -m submission bundle` wrote; this one holds far more files than a bundle."""
    if view.overfull:
        yield "", f"more than {MOST_ENTRIES:,} files and folders; the rest was not looked at"


def suffix_of(path: str) -> str:
    """Return the suffix of a path in lower case, ".json"; "" where it has none."""
    name = path.rpartition("/")[2]
    return f".{name.rpartition('.')[2].lower()}" if "." in name[1:] else ""


def is_pair(folder: str) -> bool:
    """Return whether a folder's name has the form of a language pair, `en-de`."""
    return re.fullmatch(r"[a-z]{2,3}-[a-z]{2,3}", folder) is not None
