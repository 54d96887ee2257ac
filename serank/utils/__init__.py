"""What is about no frame and no network."""
