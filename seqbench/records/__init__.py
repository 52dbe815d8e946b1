"""What runs leave: where it lies, what it stands on, who may write it, and how thousands of it are read."""
