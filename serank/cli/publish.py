"""`serank publish`."""

from __future__ import annotations

import argparse
from pathlib import Path

from serank.checkpoints.folder import FILES
from serank.checkpoints.hub import push
from serank.cli.publish_checks import problems
from serank.errors import CheckpointError

DETAILS = (
    "Pushes it to the Hub. It must load and run, and its card must name licence, data sets and metrics; otherwise "
    "all that is wrong is listed and nothing is pushed. Log in first with `hf auth login`, or set HF_TOKEN."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder that save_pretrained or `serank train` (best/) wrote")
    parser.add_argument("repo_id", metavar="REPO_ID", help="owner/name on the Hub, made if it doesn't exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", default="main", metavar="BRANCH", help="branch, made if it doesn't exist")
    parser.add_argument("--message", metavar="TEXT", help="of the commit")
    parser.add_argument("--dry-run", action="store_true", help="check, show what would go, and send nothing")


def run(options: argparse.Namespace) -> int:
    folder = Path(options.folder)
    if found := problems(folder, options.repo_id, options.revision):
        lines = "\n  ".join(found)
        raise CheckpointError(f"{folder}: nothing was pushed, {len(found)} checks failed:\n  {lines}")
    if not options.dry_run:
        private = True if options.private else None
        commit = push(
            folder, FILES, options.repo_id, private=private, revision=options.revision, message=options.message
        )
        print(commit)
        return 0
    from huggingface_hub import constants

    kind = ", private if it is new" if options.private else ""
    print(f"would push to {constants.ENDPOINT}/{options.repo_id}, branch {options.revision}{kind}:")
    for file in FILES:
        print(f"  {file:<18} {(folder / file).stat().st_size:>12,} bytes")
    return 0
