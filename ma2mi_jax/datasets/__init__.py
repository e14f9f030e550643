"""One reader per dataset: `read(root, ...) -> clips.Source`."""
