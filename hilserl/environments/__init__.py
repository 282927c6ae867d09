"""The environments that a policy acts in, and how one is made from a configuration."""
