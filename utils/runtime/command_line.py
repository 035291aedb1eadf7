"""A script's constants as flags, each of them checked."""

import argparse
import math
import os
import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, NoReturn

from utils.runtime.cluster import EVERY
from utils.runtime.cores import cores
from utils.runtime.errors import UserError


class Check(NamedTuple):
    """How one constant is read from text, and which values it may have."""

    read: Callable[[str], Any]
    allows: Callable[[Any], bool]
    wants: str


def whole(least: int = 0, most: float = math.inf) -> Check:
    """An int between `least` and `most`."""
    wants = f"a whole number {_between(least, most)}"
    return Check(int, lambda value: least <= value <= most, wants)


def processes(least: int = 0) -> Check:
    """How many processes or threads; thousands would only bring the machine down."""
    return whole(least, 1024)


def address() -> Check:
    """Where a Ray cluster is, if any; by default WORKERS are then all processors of it."""
    return Check(
        str,
        lambda value: re.fullmatch(r"|auto|[\w.-]+:\d{1,5}", value) is not None,
        'empty for none, "auto" for the Ray cluster of this machine or $RAY_ADDRESS, or HOST:PORT',
    )


def seed() -> Check:
    """A seed that every generator of random numbers takes."""
    return whole(0, 2**31 - 1)


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """A finite float between `least` and `most`."""
    return Check(
        float,
        lambda value: math.isfinite(value) and least <= value <= most,
        f"a number {_between(least, most)}",
    )


def choice(*options: str) -> Check:
    """One of the given words."""
    return Check(str, lambda value: value in options, "one of " + ", ".join(options))


def folder() -> Check:
    """A folder that exists or can be made: nothing on its way may be a file or a broken link."""

    def allows(value: str) -> bool:
        if not value or "\0" in value:
            return False
        path = Path(value)
        return all(part.is_dir() for part in (path, *path.parents) if os.path.lexists(part))

    return Check(str, allows, "a folder, and no file may stand in its place, nor a link to nowhere")


def word() -> Check:
    """A name of letters, digits, dots, dashes and underscores (it becomes part of a file name)."""
    return Check(
        str,
        lambda value: re.fullmatch(r"\w[\w.-]{0,99}", value) is not None,
        "a plain name of at most 100 letters, digits, dots, dashes and underscores",
    )


def film_name() -> Check:
    """The name of an .mp4 file, or "none"."""
    plain = word()
    return Check(
        str,
        lambda value: plain.allows(value) and (value == "none" or value.endswith(".mp4")),
        'a plain name that ends in .mp4, or "none"',
    )


def settings(script: dict[str, Any], argv: list[str] | None, **checks: Check) -> SimpleNamespace:
    """The script's UPPERCASE constants, overridden by flags, each checked.

    Args:
        script: `globals()` of the script. Every constant named in `checks` becomes a flag:
            `LATENT_DIM = 32` is `--latent-dim 32`; its comment becomes the flag's help.
        argv: flags without the program's name; None reads them from `sys.argv`.
        checks: one check for every constant.

    Raises:
        UserError: an unknown flag, or a value that its check does not allow.
    """
    reasons = _reasons(script["__file__"])
    parser = _Parser(
        description=script["__doc__"],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, check in checks.items():
        default = str(script[name])  # as text, so that an edited constant is checked, too
        parser.add_argument(
            _flag(name),
            dest=name,
            type=partial(_checked, name, check),
            default=default,
            metavar=default or name,
            help=reasons.get(name, "").replace("%", "%%"),
        )
    found = parser.parse_args(argv, SimpleNamespace())
    if getattr(found, "CLUSTER", "") and script["WORKERS"] == cores():
        parser.set_defaults(WORKERS=EVERY)  # which a flag still overrides
        found = parser.parse_args(argv, SimpleNamespace())
    return found


def chosen(s: SimpleNamespace, *names: str) -> dict[str, Any]:
    return {name: getattr(s, name) for name in names}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists every flag.")


USUAL = {
    "rollouts": "data/rollouts", "latents": "data/latents",
    "own_rollouts": "data/dream/rollouts", "own_latents": "data/dream/latents",
    "checkpoints": "checkpoints", "controller": "controller", "imitation": "data/imitation",
    "name": "controller",
}  # fmt: skip


def stage_command(stage: str, **flags: str | Path) -> str:
    """How to run a stage, with those of the flags that are not as usual."""
    unusual = {name: str(value) for name, value in flags.items() if USUAL.get(name) != str(value)}
    said = (f"{_flag(name)} {shlex.quote(value)}" for name, value in unusual.items())
    return " ".join([f"python {stage}.py", *said])


def _checked(name: str, check: Check, text: str) -> Any:
    with suppress(ValueError):
        value = check.read(text)
        if check.allows(value):
            return value
    raise UserError(f"{name} ({_flag(name)}) must be {check.wants}, not {text!r}.")


def _flag(name: str) -> str:
    return "--" + name.lower().replace("_", "-")


def _between(least: float, most: float) -> str:
    if least == -math.inf and most == math.inf:
        return "of any finite size"
    return f"of at least {least}" if most == math.inf else f"from {least} to {most}"


def _reasons(path: str) -> dict[str, str]:
    """The comments behind a script's constants."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Z][A-Z0-9_]*) = .*?\s# (.*)", line) for line in lines)
    return {match[1]: match[2] for match in found if match}
