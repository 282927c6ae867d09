"""A trained policy for other tools: a folder that LeRobot loads, or an ONNX file."""
