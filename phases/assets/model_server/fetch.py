"""Brings a model from where its URI says into a local folder, once for all replicas of a revision."""

import fcntl
import os
import pathlib
import shutil


class Permanent(Exception):
    """What trying again does not mend."""


class Transient(Exception):
    """What may pass."""


def fetch(uri, folder):
    """The local folder of the model at `uri`: itself, or `folder` with a copy."""
    if uri.startswith("/"):
        path = pathlib.Path(uri)
        if not path.is_dir():
            raise Permanent(f"the model {uri} is no folder that {account()} can see")
        return path
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        # Replicas that start at the same time wait for the first one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            download(uri, partial)
            # Only a whole model gets the name.
            partial.rename(folder)
    return folder


def download(uri, target):
    """Fills `target` with the files below `uri`."""
    # Its own progress bars would be the last thing in the log.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # A bad address must be told soon: by default it tries for minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    import botocore.exceptions
    import mlflow.artifacts
    import mlflow.exceptions
    import requests

    try:
        mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(target))
    except (botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError, requests.ConnectionError) as error:
        raise Transient(f"fetch {uri}: {line(error)}") from error
    except (mlflow.exceptions.MlflowException, botocore.exceptions.BotoCoreError,
            botocore.exceptions.ClientError, OSError, ValueError) as error:
        if uri.startswith("s3://") and any(word in str(error) for word in ("(404)", "NoSuchKey", "NoSuchBucket")):
            raise Permanent(f"fetch {uri}: there is nothing") from error
        unreachable = "Max retries exceeded" in str(error) or "too many 50" in str(error)
        raise (Transient if unreachable else Permanent)(f"fetch {uri}: {line(error)}") from error
    # An object store has no folders: a wrong prefix is an empty one.
    found = [path for path in target.rglob("*") if path.is_file()]
    if not found:
        raise Permanent(f"fetch {uri}: there is nothing")
    # Some stores give the folder itself, not what is in it.
    inner = list(target.iterdir())
    if len(inner) == 1 and inner[0].is_dir():
        for path in list(inner[0].iterdir()):
            path.rename(target / path.name)
        inner[0].rmdir()


def line(error):
    """An error in one line."""
    return " ".join(f"{error}".split())[:400] or type(error).__name__


def account():
    """Who this process is."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
