"""Command line: ``cryogem <command> [--config FILE] [flags] --output DIR``.

Flags, help and defaults come from the dataclasses of `cryogem.config`. Logging and exit codes live here and nowhere
else: 0 done, 2 a mistake of the user, 1 a fault of ours, 130 stopped from the keyboard. The last line on stderr of a
run that failed is ``ERROR: <sentence>``. Commands are imported when called: ``--help`` must not wait for torch.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib
import logging
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import cryogem
from cryogem.config import COMMANDS, Config, build_config, key_of, read_config_file
from cryogem.errors import ConfigError, CryogemError

logger = logging.getLogger('cryogem')

EXIT_FAULT, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command with the arguments `argv` (default: those of the process) and return the exit code."""
    try:
        command, config, is_verbose = parse_arguments(argv)
        with _log_to_stdout(is_verbose):
            module = importlib.import_module(f'cryogem.commands.{command.replace("-", "_")}')
            module.run(config, Path(config.output))
    except CryogemError as error:
        return _fail(str(error), EXIT_MISTAKE)
    except KeyboardInterrupt:
        return _fail('stopped from the keyboard; what is finished is kept', EXIT_INTERRUPTED)
    except Exception as error:
        traceback.print_exc()
        return _fail(f'{type(error).__name__}: {error} (a fault of cryogem, please report it with the lines above)',
                     EXIT_FAULT)
    return 0


def parse_arguments(argv: Sequence[str] | None = None) -> tuple[str, Config, bool]:
    """Return the command, its settings (config file first, flags win) and whether details are logged.

    Raises
    ------
    ConfigError : an unknown command or flag, or a setting that is missing or out of range.
    InputError : the config file cannot be read.
    """
    arguments, unknown = _make_parser().parse_known_args(argv)
    given = vars(arguments)
    command, path, is_verbose = given.pop('command'), given.pop('config'), given.pop('verbose')
    if unknown:
        raise ConfigError(f'{unknown[0]} is unknown to cryogem {command}; see cryogem {command} --help')
    values = {} if path is None else read_config_file(path)
    return command, build_config(COMMANDS[command], {**values, **given}), is_verbose


class _Parser(argparse.ArgumentParser):
    """A parser that raises its errors, so that they end in the same single line as all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f'{message}; see {self.prog} --help')


def _make_parser() -> _Parser:
    parser = _Parser(prog='cryogem', allow_abbrev=False, description=cryogem.__doc__)
    parser.add_argument('--version', action='version', version=f'cryogem {cryogem.__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    for name, config_class in COMMANDS.items():
        about = _describe_class(config_class)
        required = [one for one in dataclasses.fields(config_class) if one.metadata.get('required')]
        needed = ' '.join(_usage(one) for one in required[1:] + required[:1])          # --output last
        command_parser = commands.add_parser(
            name, prog=f'cryogem {name}', help=about, description=about, allow_abbrev=False,
            usage=f'cryogem {name} [--config FILE] [flags] {needed}',
            epilog='Every flag is also a key of the JSON file given by --config (with _ for -); flags win.')
        command_parser.add_argument('--config', metavar='FILE', help='JSON file with settings, as config.json of a run')
        command_parser.add_argument('-v', '--verbose', action='store_true', help='log details')
        _add_settings(command_parser, config_class)
    return parser


def _add_settings(parser: _Parser, config_class: type[Config]) -> None:
    """Add a flag for each setting, in one group per class that defines settings, the command's own first."""
    settings = {one.name: one for one in dataclasses.fields(config_class)}
    kinds = typing.get_type_hints(config_class)
    for owner in config_class.__mro__:
        names = [name for name in vars(owner).get('__annotations__', {}) if name in settings]
        title = 'settings of this command' if owner is config_class else _describe_class(owner).rstrip('.')
        group = parser.add_argument_group(title)
        for name in names:
            _add_flag(group, settings.pop(name), kinds[name])


def _add_flag(group: Any, setting: dataclasses.Field, kind: Any) -> None:
    """Add one setting of type `kind`; suppressed defaults let only flags that were given win over the config file."""
    if isinstance(kind, types.UnionType):                      # X | None
        kind = next(one for one in typing.get_args(kind) if one is not types.NoneType)
    options: dict[str, Any] = {'default': argparse.SUPPRESS, 'help': _describe(setting).replace('%', '%%')}
    form = setting.metadata.get('form') or '|'.join(setting.metadata.get('choices', ()))
    if kind is bool:
        options['action'] = argparse.BooleanOptionalAction
    elif kind == tuple[str, ...]:
        options.update(action='extend', nargs='+', metavar=form)
    else:
        default_form, parse = _PARSERS[kind]
        options.update(type=parse, metavar=form or default_form)
    if setting.metadata.get('positional'):
        group.add_argument(key_of(setting), nargs='?', **options)
    else:
        group.add_argument(_flag(setting), dest=key_of(setting), **options)


def _flag(setting: dataclasses.Field) -> str:
    return '--' + key_of(setting).replace('_', '-')


def _usage(setting: dataclasses.Field) -> str:
    form = str(setting.metadata['form'])
    return form if setting.metadata.get('positional') else f'{_flag(setting)} {form}'


def _describe_class(config_class: type) -> str:
    return (config_class.__doc__ or '').split('\n')[0]


def _describe(setting: dataclasses.Field) -> str:
    """Return the help of a setting with its default, unless the text itself speaks of it."""
    text = str(setting.metadata['help'])
    value: Any = setting.default
    if setting.metadata.get('required'):
        return f'{text} (required)'
    if 'default' in text:
        return text
    if isinstance(value, bool):
        shown = 'yes' if value else 'no'
    elif isinstance(value, (int, float)):
        shown = f'{value:g}'
    elif isinstance(value, tuple):
        shown = ':'.join(f'{one:g}' for one in value)
    else:
        shown = value
    return f'{text} (default: {shown or "none"})'


def _parse_integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a whole number') from None


def _parse_number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None


def _parse_pair(text: str) -> tuple[float, ...]:
    if text.count(':') != 1:
        raise argparse.ArgumentTypeError(f'{text!r} is not two numbers with a colon between them')
    return tuple(_parse_number(one) for one in text.split(':'))


_PARSERS: dict[Any, tuple[str, Callable[[str], Any]]] = {
    int: ('N', _parse_integer),
    float: ('X', _parse_number),
    tuple[float, float]: ('X:Y', _parse_pair),
    str: ('TEXT', str),
}


class _PlainFormatter(logging.Formatter):
    """Plain lines; only warnings and worse carry their level."""

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line if record.levelno < logging.WARNING else f'{record.levelname}: {line}'


@contextlib.contextmanager
def _log_to_stdout(is_verbose: bool) -> Iterator[None]:
    """Send the engine's log to stdout, one flushed line per event: it lands in Scipion's run.stdout."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_PlainFormatter())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if is_verbose else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _fail(message: str, exit_code: int) -> int:
    """Write the one line that ends a failed run."""
    sys.stdout.flush()
    print('ERROR: ' + ' '.join(message.split()), file=sys.stderr, flush=True)
    return exit_code


def run_as_program() -> NoReturn:
    """Run one command and end the process."""
    code = main()
    gc.freeze()                             # looking once more for what can be freed takes half a second
    sys.exit(code)


if __name__ == '__main__':
    run_as_program()
