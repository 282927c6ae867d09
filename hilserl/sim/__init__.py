"""The simulated SO-101 tasks, the scripted expert and the simulated human. Nothing heavy is imported here."""
