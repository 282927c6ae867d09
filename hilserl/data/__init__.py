"""What happens to data: preprocessing, recording, validation, decoding, conversion, storage."""
