"""What several readers share: the disk, sheets, frame numbers, faces, classes."""
