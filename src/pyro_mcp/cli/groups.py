"""Groups of verbs that answer a misspelt one with the nearest, and commands whose help has its options in sections."""

from typing import Any

import click


class VerbMissing(click.UsageError):
    """A group of verbs was named, and none of them."""


class Group(click.Group):
    """A group that says which verb was probably meant."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See ``click.Command``."""
        if not args and not self.invoke_without_command and not ctx.resilient_parsing:
            raise VerbMissing(f"a verb is missing after `{ctx.command_path}`", ctx)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which one was probably meant."""
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            import difflib  # only who errs waits for it

            near = difflib.get_close_matches(args[0], names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise click.UsageError(f"no such command {args[0]!r:.80}.{hint}", ctx)
        return super().resolve_command(ctx, args)


class SectionOption(click.Option):
    """An option that the help shows under *section*."""

    def __init__(self, *declarations: Any, section: str, **more: Any) -> None:  # noqa: ANN401 - click's
        super().__init__(*declarations, **more)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help has the options of a section together."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See ``click.Command``."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                section = parameter.section if isinstance(parameter, SectionOption) else "Options"
                sections.setdefault(section, []).append(record)
        for section in sorted(sections, key=lambda name: name == "Options"):
            with formatter.section(section):
                formatter.write_dl(sections[section])
