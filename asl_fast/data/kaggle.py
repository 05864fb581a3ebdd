"""Downloads the real data set from Kaggle."""

import hashlib
import shutil
from pathlib import Path

from asl_fast.data.dataset import KNOWN_SHA256
from asl_fast.system import extras
from asl_fast.system.errors import InputError
from asl_fast.system.storage import make_folder, replacing

__all__ = ["fetch"]

_HANDLE = "datamunge/sign-language-mnist"
_FILES = ("sign_mnist_train.csv", "sign_mnist_test.csv")


def fetch(folder: Path) -> list[Path]:
    """Downloads the two CSV files by `kagglehub` and checks them.

    Args:
        folder: For the files; made if missing.

    Returns:
        The paths of the two files.

    Raises:
        InputError: kagglehub is missing, the download failed, or a file has another checksum.
    """
    try:
        import kagglehub
    except ImportError:
        raise extras.missing("Fetching", "kaggle") from None
    make_folder(folder)
    return [_fetch_file(kagglehub, name, folder / name) for name in _FILES]


def _fetch_file(kagglehub: object, name: str, target: Path) -> Path:
    try:
        fetched = Path(kagglehub.dataset_download(_HANDLE, path=name))  # type: ignore[attr-defined]
    except Exception as error:  # kagglehub and the network below it raise all kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"Kaggle's {_HANDLE}/{name} can't be downloaded: {reason}") from None
    with fetched.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if KNOWN_SHA256.get(digest) != name:
        raise InputError(
            f"{name} from Kaggle's {_HANDLE} is not the known file (sha256 {digest}): the download "
            f"was cut short or the data set has changed. Delete {fetched} and try again."
        )
    with replacing(target) as aside:
        shutil.copyfile(fetched, aside)
    return target
