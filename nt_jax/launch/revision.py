"""The revision that is launched: the commit that this very package is checked out at."""

import dataclasses
import pathlib
import subprocess

from nt_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Revision:
    """A clean checkout."""

    root: pathlib.Path
    """Its folder."""
    commit: str
    """40 hexadecimal digits."""

    def path_in(self, file: str) -> str:
        """`file` relative to the checkout; InputError where it is not part of the commit."""
        path = pathlib.Path(file).absolute()
        inside = path.is_relative_to(self.root)
        if not inside or _git(self.root, "ls-files", "--error-unmatch", str(path)) is None:
            raise InputError(
                f"{file}: not in the commit that is installed on the workers; put it into "
                f"{self.root}/experiments and commit it"
            )
        return str(path.relative_to(self.root))

    def bundle(self) -> pathlib.Path:
        """Where the bundle of this commit is kept."""
        return pathlib.Path.home() / ".cache" / "nt-jax" / f"{self.commit[:12]}.bundle"


def this_revision() -> Revision:
    """The checkout that this package runs from; InputError where it is none or is not clean."""
    root = pathlib.Path(__file__).resolve().parents[2]
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        raise InputError(
            f"{root}: no git checkout, so there is no revision to install on the workers; "
            "clone the repository and `make install` there"
        )
    changed = (_git(root, "status", "--porcelain") or "").splitlines()
    if changed:
        raise InputError(
            f"{root}: {len(changed)} files differ from the commit (the first: {changed[0][3:]}), "
            "and the workers run a commit; `git commit` or `git stash -u` them"
        )
    return Revision(root, commit.strip())


def _git(root: pathlib.Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout
