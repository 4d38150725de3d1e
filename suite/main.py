"""The `insta` command."""

from __future__ import annotations

import dataclasses
import gc
import os
import pkgutil
import sys
from typing import Any

import click

from chassis import logs
from chassis import settings as chassis_settings
from chassis.call import log_context
from chassis.settings import SettingError
from suite import callers

# Where each command is. Its module is imported when somebody asks for it: a start need not wait for the others.
_COMMANDS = {
    "up": "suite.run:up",
    "serve": "suite.run:serve",
    "apart": "suite.run:apart",
    "superuser": "suite.operator:superuser",
    "token": "suite.operator:token",
    "keys": "suite.operator:signing_keys",
    "tls": "suite.tls:tls",
    "demo": "suite.demo:demo",
    "call": "suite.call:call",
    "check": "suite.check:check",
    "media": "suite.media:media",
    "client-config": "suite.client_config:client_config",
    "audit": "suite.audit:audit",
    "backup": "suite.backup:backup",
    "migrate": "suite.migrate:migrate",
    "move": "suite.move:move",
    "restore": "suite.restore:restore",
}


class _Commands(click.Group):
    """The commands in `_COMMANDS`. The help also lists the settings."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        # Modules come to stay: looking for garbage among them would only take time.
        gc.disable()
        try:
            command: click.Command = pkgutil.resolve_name(_COMMANDS[cmd_name])
        finally:
            gc.enable()
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingError as wrong:
            raise click.ClickException(str(wrong)) from None

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Settings, from the environment"):
            formatter.write_dl(
                [
                    (variable, f"{meaning} [{default}]" if default else meaning)
                    for variable, default, meaning in chassis_settings.described()
                ]
            )


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """Runs the suite, or one of its services, and operates it."""
    settings = chassis_settings.from_environment(os.environ)
    callers.allowed(settings)
    if "INSTA_LOG_PRETTY" not in os.environ:
        settings = dataclasses.replace(settings, log_pretty=sys.stderr.isatty())
    logs.configure(settings.log_level, settings.log_pretty, log_context)
    context.obj = settings
