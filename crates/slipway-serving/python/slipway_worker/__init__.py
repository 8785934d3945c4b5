"""The process that holds a model and predicts, beside `slipway-runner`.

It needs Python 3.8, NumPy and the model's own framework. `serve` talks to the runner, `loaders` reads each format,
`tensors` maps shared memory to NumPy arrays. What a user's class may define is described in `loaders.python_class`.
"""
