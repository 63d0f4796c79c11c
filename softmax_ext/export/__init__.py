"""A model in other people's forms: `onnx` writes an ONNX graph, `c` a C header.

`SoftmaxModel.to_onnx` and `SoftmaxModel.to_c` are their public names.
"""
