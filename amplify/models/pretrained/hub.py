"""Checkpoint folders, by path or by name on the Hugging Face hub."""

from pathlib import Path

from amplify.errors import AmplifyError, first_line


def find_folder(name: str) -> Path:
    """Returns a checkpoint folder, downloaded to the hub's cache if need be.

    Args:
        name: the path of a folder, or the name of a checkpoint on the hub.

    Raises:
        AmplifyError: if there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = ["*.json", "*.safetensors", "*.model", "*.jinja", "*.txt", "LICENSE*"]
    ignored = ["*/*", "consolidated*", "adapter_model*"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignored))
    except HFValidationError:  # not a valid name on the hub, so it was meant as a path
        raise AmplifyError(f"{name}: no such folder") from None
    except Exception as error:  # the network, the hub and its cache raise many kinds
        raise AmplifyError(
            f"{name}: neither a local folder nor a checkpoint that can be downloaded from the hub"
            f" ({first_line(error)})"
        ) from None
