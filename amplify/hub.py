"""Checkpoint folders, by their path or by the name that they have on the hub."""

from pathlib import Path

from amplify.errors import AmplifyError, first_line


def find(name: str) -> Path:
    """The folder of that path, or a copy of the hub's checkpoint of that name, kept in its cache.

    Raises:
        AmplifyError: if there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    wanted = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*"]
    unread = ["*/*", "consolidated*", "adapter_model*"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=unread))
    except HFValidationError:  # no name at all on the hub, but a path
        raise AmplifyError(f"{name}: no such folder") from None
    except Exception as error:  # of the network, of the hub, of its cache: each has its own
        raise AmplifyError(
            f"{name}: neither a folder here nor a checkpoint that can be had from the hub"
            f" ({first_line(error)})"
        ) from None
