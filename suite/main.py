"""The `insta` command."""

from __future__ import annotations

import dataclasses
import gc
import importlib
import os
import sys
from typing import Any

import click

from chassis import logs
from chassis import settings as chassis_settings
from chassis.call import log_context
from chassis.settings import SettingError
from suite import callers

# Where each command is. Its module is imported when somebody asks for it: a start need not wait for the others.
_MODULES = {
    "up": "suite.run",
    "serve": "suite.run",
    "apart": "suite.run",
    "superuser": "suite.operator",
    "token": "suite.operator",
    "signing-keys": "suite.operator",
    "tls": "suite.tls",
    "demo": "suite.demo",
    "call": "suite.call",
    "check": "suite.check",
    "client-config": "suite.client_config",
    "audit": "suite.audit",
    "backup": "suite.backup",
    "restore": "suite.restore",
}


class _Commands(click.Group):
    """The commands in `_MODULES`. The help also lists the settings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _MODULES:
            return None
        command: click.Command = getattr(_imported(_MODULES[cmd_name]), cmd_name.replace("-", "_"))
        return command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings, from the environment"):
            formatter.write_dl(
                [
                    (variable, f"{meaning} [{default}]" if default else meaning)
                    for variable, default, meaning in chassis_settings.described()
                ]
            )


def _imported(module: str) -> Any:
    # Modules come to stay: looking for garbage among them would only take time.
    gc.disable()
    try:
        return importlib.import_module(module)
    finally:
        gc.freeze()
        gc.enable()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Runs the suite, or one of its services, and operates it."""
    try:
        settings = chassis_settings.from_environment(os.environ)
        callers.allowed(settings)
    except SettingError as wrong:
        raise click.ClickException(str(wrong)) from None
    if "INSTA_LOG_PRETTY" not in os.environ:
        settings = dataclasses.replace(settings, log_pretty=sys.stderr.isatty())
    logs.configure(settings.log_level, settings.log_pretty, log_context)
    context.obj = settings
