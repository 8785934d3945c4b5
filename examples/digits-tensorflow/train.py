"""Trains a small convolutional network on scanned digits with an explicit gradient loop, and exports a SavedModel."""

import argparse
import json
import os

import numpy as np
import tensorflow as tf

from digits import resize, training_digits


def build_network():
    return tf.keras.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            tf.keras.layers.Conv2D(32, 3, activation="relu"),
            tf.keras.layers.MaxPooling2D(2),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(10),
        ]
    )


def export(network, folder):
    """Writes a SavedModel: `image` (N, 28, 28, 1) from 0 to 1 in, `probabilities` (N, 10) out."""

    @tf.function(input_signature=[tf.TensorSpec((None, 28, 28, 1), tf.float32, name="image")])
    def serve(image):
        return {"probabilities": tf.nn.softmax(network(image, training=False))}

    module = tf.Module()
    module.network = network
    tf.saved_model.save(module, folder, signatures={"serving_default": serve})


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    # `slipway train` sets both folders; the defaults are for running this file by hand.
    model_folder = os.environ.get("SLIPWAY_MODEL_DIR", "model")
    checkpoint_folder = os.environ.get("SLIPWAY_CHECKPOINT_DIR", "checkpoints")

    tf.keras.utils.set_random_seed(args.seed)
    images, labels = training_digits()
    images, labels = resize(images)[..., None], labels.astype(np.int64)
    order = np.random.default_rng(args.seed).permutation(len(labels))
    validation, training = order[: len(order) // 10], order[len(order) // 10 :]
    batches = tf.data.Dataset.from_tensor_slices((images[training], labels[training]))
    batches = batches.shuffle(len(training), seed=args.seed).batch(args.batch_size)

    network = build_network()
    steps = args.epochs * len(batches)
    optimizer = tf.keras.optimizers.Adam(tf.keras.optimizers.schedules.CosineDecay(args.learning_rate, steps))
    optimizer.build(network.trainable_variables)
    cross_entropy = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def train_step(batch_images, batch_labels):
        with tf.GradientTape() as tape:
            loss = cross_entropy(batch_labels, network(batch_images, training=True))
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables))
        return loss

    @tf.function
    def accuracy(some_images, some_labels):
        guesses = tf.argmax(network(some_images, training=False), axis=1)
        return tf.reduce_mean(tf.cast(guesses == some_labels, tf.float32))

    done = tf.Variable(0, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(network=network, optimizer=optimizer, done=done)
    checkpoints = tf.train.CheckpointManager(checkpoint, checkpoint_folder, max_to_keep=2)
    if checkpoints.latest_checkpoint:
        checkpoint.restore(checkpoints.latest_checkpoint).assert_consumed()

    for epoch in range(int(done.numpy()) + 1, args.epochs + 1):
        loss = np.mean([train_step(*batch).numpy() for batch in batches])
        metrics = {
            "epoch": epoch,
            "loss": round(float(loss), 4),
            "accuracy": round(float(accuracy(images[validation], labels[validation])), 4),
        }
        print(json.dumps(metrics), flush=True)
        done.assign(epoch)
        checkpoints.save()

    export(network, model_folder)


if __name__ == "__main__":
    main()
