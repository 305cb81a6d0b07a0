"""Images of OCI and Docker registries: pulled, verified, flattened to one squashfs, published."""
