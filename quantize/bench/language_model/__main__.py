"""Quality per byte on a real language model: the paper's recipe, AWQ, GPTQ and error feedback.

    nox -s bench_lm -- --text wikitext2_test.txt --calibration wikitext2_valid.txt

A row is written as

    paper                 the paper's recipe
    awq                   the same after AWQ, which is calibrated on the sequences that give the moments of inputs
    feedback@3.86         error feedback at 3.86 bits a weight; or trellis, diagonal, equal-rate, one-step
    gptq@4.25             llm-compressor's GPTQ, in its own environment: 4 bits with a scale for 64 weights
    linears:gptq@4.25     without embedding and head, which are left as they are
    recover:trellis@2.0   with scales, zero-points and norms tuned afterwards

Sizes are the bytes of the parts that the codecs store, scales and padding included; the header of a file of weights is
left out. Increases and divergences are nats per token. Each row is a JSON object on stdout, and a line at the end of
rows.jsonl in the working folder, from which `quality_chart` draws them; a bench that was killed continues with rows
that are not there yet, named again, and reads the moments that it has measured.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from quantize.bench.language_model.quantized_weights import Problem
from quantize.bench.language_model.rows import GPTQ, CalibrationText, Peer, measure, parse_row
from quantize.bench.language_model.smollm2 import (
    Evaluation,
    calibrate,
    load_smollm2,
    observed_weights,
    read_tokens,
    spread_sequences,
    weight_tensors,
    write_checkpoint,
)
from submission.errors import UserError

PEER_PYTHON = Path(".nox", "peer_env", "bin", "python")
"""Where nox makes it."""
ROWS = "rows.jsonl"
"""In the working folder: all rows that were measured there, one after the other."""


def main() -> None:
    """Print a JSON object for each row."""
    options = _parser().parse_args()
    rows = [parse_row(text) for text in options.rows]
    peer = Peer(python=options.peer, work=options.work)
    compared = any(row.method == GPTQ for row in rows)
    if compared and not peer.python.is_file():
        raise UserError("bench_lm", f"{peer.python}, which runs rows of {GPTQ}, is not there", "run nox -s bench_lm")
    model, tokenizer = load_smollm2()
    weights = observed_weights(model)
    moments = options.work / f"moments-{options.inputs}-{options.gradients}"
    tokens = read_tokens(tokenizer, options.calibration)
    calibrate(model, weights, tokens, moments, (options.inputs, options.gradients))
    keys = {weight.name: weight.input_key for weight in weights}
    problem = Problem(weights=weight_tensors(weights), input_keys=keys, moments=moments)
    calibration = CalibrationText(tokens=tokens, sequences=spread_sequences(tokens, options.inputs))
    if compared:
        write_checkpoint(model, tokenizer, peer.checkpoint)
        save_file({"ids": calibration.sequences}, peer.calibration)
    evaluation = Evaluation(model, spread_sequences(read_tokens(tokenizer, options.text), options.sequences))
    for row in rows:
        line = json.dumps(measure(row, problem, evaluation, peer, model, calibration))
        print(line, flush=True)
        with (options.work / ROWS).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m quantize.bench.language_model", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--text", type=Path, required=True, help="what losses are measured on")
    parser.add_argument("--calibration", type=Path, required=True, help="what moments are taken on")
    parser.add_argument("--work", type=Path, required=True, help="folder that keeps moments and rows")
    parser.add_argument("--sequences", type=int, default=40, help="sequences of 512 tokens that are scored (40)")
    parser.add_argument("--inputs", type=int, default=32, help="sequences for second moments of inputs (32)")
    parser.add_argument("--gradients", type=int, default=32, help="sequences for moments of gradients (32)")
    peer = "Python of the environment with llm-compressor, for rows of gptq (%(default)s)"
    parser.add_argument("--peer", type=Path, default=PEER_PYTHON, help=peer)
    what = "as above; paper and feedback@3.86 where none is named"
    parser.add_argument("rows", nargs="*", default=["paper", "feedback@3.86"], help=what)
    return parser


if __name__ == "__main__":
    main()
