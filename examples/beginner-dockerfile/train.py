"""Trains a small convolutional network on scanned digits, and saves it as a SavedModel."""

import argparse
import json

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model_name", default="digits")
parser.add_argument("--model_dir", default="model")
parser.add_argument("--epochs", type=int, default=8)
args = parser.parse_args()

tf.keras.utils.set_random_seed(1)
digits = load_digits()
# Every fifth digit is held out: ../verify.py sends those to the served model, so training must not see them.
kept = np.arange(len(digits.target)) % 5 != 0
images = tf.image.resize(digits.images[kept][..., None] / 16, (28, 28))
labels = digits.target[kept]

model = tf.keras.Sequential(
    [
        tf.keras.Input((28, 28, 1)),
        tf.keras.layers.Conv2D(32, 3, activation="relu"),
        tf.keras.layers.MaxPooling2D(2),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(10),
    ],
    name=args.model_name,
)
batches = tf.data.Dataset.from_tensor_slices((images, labels)).shuffle(len(labels)).batch(32)
optimizer = tf.keras.optimizers.Adam(
    tf.keras.optimizers.schedules.CosineDecay(3e-3, args.epochs * len(batches))
)
cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@tf.function
def train_step(batch_images, batch_labels):
    with tf.GradientTape() as tape:
        loss = cross_entropy(batch_labels, model(batch_images, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss


optimizer.build(model.trainable_variables)
for epoch in range(1, args.epochs + 1):
    loss = np.mean([train_step(*batch).numpy() for batch in batches])
    print(json.dumps({"epoch": epoch, "loss": round(float(loss), 4)}), flush=True)


@tf.function(input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.float32, name="image")])
def serve(image):
    return {"probabilities": tf.nn.softmax(model(image, training=False))}


module = tf.Module()
module.model = model
tf.saved_model.save(module, args.model_dir, signatures={"serving_default": serve})
print(f"saved {args.model_name} in {args.model_dir}")
