"""The SO-101 arm: units, kinematics, action codec, state. Nothing heavy is imported here."""
