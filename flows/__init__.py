"""One Prefect flow a file; each reads as the diagram."""
