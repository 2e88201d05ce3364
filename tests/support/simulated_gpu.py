"""A GPU that is not there: its tensors compute on the CPU, and refuse what those of a GPU refuse.

An operation on tensors of two devices raises RuntimeError, as CUDA does, and reading one as a numpy array TypeError.
What a GPU computes differently (roundings, kernels of its own) is not simulated: this proves where tensors are, and no
values.

Tensors have a device of the type `simulated`, which torch knows from the import of this module on, since torch without
CUDA cannot differentiate on `cuda`. Import it in a process of its own, before the first backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

KIND = "simulated"
GENERATOR = torch.Generator
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._to_copy.default}
"""Operations that are there to cross devices."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations whose indices may lie on the CPU."""


class DeviceModule(_DummyBackendModule):
    """What torch asks of a type of devices."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """Return the dtypes of autocast."""
        return [torch.bfloat16, torch.float16]


class SimulatedTensor(torch.Tensor):
    """A tensor of the simulated GPU; `on_cpu` holds its numbers."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> SimulatedTensor:
        """Return a tensor of the same numbers on the simulated GPU."""
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=torch.device(KIND, 0),
            requires_grad=inner.requires_grad,
        )
        made.on_cpu = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return run(func, args, kwargs or {})

    # The dispatcher decides, not the class.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    is_cuda = True

    def tolist(self) -> Any:
        """Return the numbers; torch refuses that to subclasses."""
        return self.on_cpu.tolist()

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse, as for a tensor of a GPU; numpy asks by `__array__`."""
        raise TypeError("can't convert a tensor of a GPU to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    def __repr__(self) -> str:  # type: ignore[override]  # torch's own calls operations
        return f"SimulatedTensor({self.on_cpu!r})"


class SimulatedGpu(TorchDispatchMode):
    """Sends operations that make tensors on the GPU to the CPU, and wraps what they make."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class CalledCuda(TorchFunctionMode):
    """Takes `cuda` for the simulated GPU, and makes tensors of Python's numbers on the CPU first.

    `torch.tensor` asks no dispatch mode, so what it made is copied.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tuple(map(_simulated, args)), {name: _simulated(value) for name, value in (kwargs or {}).items()}
        if func is torch.Tensor.cuda:
            return args[0].to(KIND)
        if func not in (torch.tensor, torch.as_tensor) or kwargs.get("device") is None:
            return func(*args, **kwargs)
        device = torch.device(kwargs.pop("device"))
        return func(*args, **kwargs).to(device)


def _simulated(value: Any) -> Any:
    """Return the simulated GPU for a CUDA device or its name, and any other value as it is."""
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device(KIND, 0)
    if isinstance(value, str) and value.partition(":")[0] == "cuda":
        return f"{KIND}:0"
    return value


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the CPU, and return its result where a GPU would have put it."""
    given = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
    on_gpu = [value for value in given if isinstance(value, SimulatedTensor)]
    target = kwargs.get("device")
    target = None if target is None else torch.device(target)
    if on_gpu and func not in COPIES:
        _refuse_mixed(func, args, given)
    kwargs = {**kwargs, "device": torch.device("cpu")} if target is not None and target.type == KIND else kwargs
    plain_args, plain_kwargs = tree_map_only(SimulatedTensor, lambda value: value.on_cpu, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    stays = bool(on_gpu) if target is None else target.type == KIND
    if func is aten.copy_.default:
        stays = isinstance(args[0], SimulatedTensor)
    if not stays:
        return result
    result = tree_map_only(torch.Tensor, SimulatedTensor, result)
    return return_and_correct_aliasing(func, args, kwargs, result) if on_gpu else result


def _refuse_mixed(func: Any, args: Any, given: list[torch.Tensor]) -> None:
    """Raise RuntimeError for tensors of the CPU among those of the GPU; numbers, without a dimension, may be."""
    others = given
    if func in INDEXING and isinstance(args[0], SimulatedTensor):
        others = [args[0], *(value for value in args[2:] if isinstance(value, torch.Tensor))]
    wrong = [value for value in others if not isinstance(value, SimulatedTensor) and value.dim()]
    if wrong:
        what = f"{func}: tensors on the GPU and on {wrong[0].device}, {list(wrong[0].shape)} {wrong[0].dtype}"
        raise RuntimeError(f"Expected all tensors to be on the same device: {what}")


CUDA = {
    "is_available": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda device: None,
    "mem_get_info": lambda device=None: (20 << 30, 24 << 30),
    "get_device_name": lambda device=None: "simulated GPU",
    "get_device_capability": lambda device=None: (9, 0),
    "synchronize": lambda device=None: None,
    "empty_cache": lambda: None,
    "max_memory_allocated": lambda device=None: 0,
    "max_memory_reserved": lambda device=None: 0,
    "memory_allocated": lambda device=None: 0,
    "reset_peak_memory_stats": lambda device=None: None,
}
"""What `torch.cuda` answers."""


_setup_privateuseone_for_python_backend(KIND, DeviceModule())
AUTOCAST = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
"""Under autocast operations run in the dtypes of their tensors; kept, since what it registers ends with it."""
AUTOCAST.fallback(torch.library.fallthrough_kernel)


def _generator_on_the_cpu(device: Any = "cpu") -> torch.Generator:
    return GENERATOR()


@contextmanager
def simulated_gpu() -> Iterator[None]:
    """Let `cuda` be a simulated GPU while the block runs."""
    with ExitStack() as stack:
        for name, answer in CUDA.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, answer))
        # A tensor of inference mode cannot be wrapped.
        without_gradients = mock.patch.object(torch._C, "_InferenceMode", lambda on: torch.set_grad_enabled(not on))
        stack.enter_context(without_gradients)
        stack.enter_context(mock.patch.object(torch, "Generator", _generator_on_the_cpu))
        stack.enter_context(CalledCuda())
        stack.enter_context(SimulatedGpu())  # type: ignore[no-untyped-call]  # torch's own constructor
        yield
