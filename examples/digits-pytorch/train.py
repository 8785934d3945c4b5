"""Trains a small convolutional network on scanned digits, and saves its state_dict beside its class."""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch.nn.functional import cross_entropy

from digits import resize, training_digits
from model import Net


def save(content, path):
    """Writes aside and renames: a process killed in between leaves the previous file."""
    aside = path.with_suffix(".new")
    torch.save(content, aside)
    os.replace(aside, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    # `slipway train` sets both folders; the defaults are for running this file by hand.
    model_folder = Path(os.environ.get("SLIPWAY_MODEL_DIR", "model"))
    checkpoint_folder = Path(os.environ.get("SLIPWAY_CHECKPOINT_DIR", "checkpoints"))
    model_folder.mkdir(parents=True, exist_ok=True)
    checkpoint_folder.mkdir(parents=True, exist_ok=True)

    # Several ranks train one network: each takes its share of the digits, and gradients are averaged.
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")

    torch.manual_seed(args.seed)
    images, labels = training_digits()
    images, labels = torch.tensor(resize(images)[:, None]), torch.tensor(labels, dtype=torch.int64)
    order = torch.tensor(np.random.default_rng(args.seed).permutation(len(labels)))
    validation, training = order[: len(order) // 10], order[len(order) // 10 :]

    network = Net()
    optimizer = torch.optim.Adam(network.parameters(), lr=args.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    checkpoint = checkpoint_folder / "checkpoint.pt"
    done = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        done = state["done"]

    learner = torch.nn.parallel.DistributedDataParallel(network) if ranks > 1 else network
    for epoch in range(done + 1, args.epochs + 1):
        network.train()
        losses = []
        # The same order everywhere, cut to what divides by the ranks: each must take as many steps as the others.
        shuffled = training[torch.randperm(len(training))][: len(training) // ranks * ranks]
        for batch in shuffled[rank::ranks].split(args.batch_size):
            optimizer.zero_grad()
            loss = cross_entropy(learner(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        schedule.step()
        if rank > 0:
            continue
        network.eval()
        with torch.no_grad():
            right = network(images[validation]).argmax(dim=1) == labels[validation]
        metrics = {
            "epoch": epoch,
            "loss": round(float(np.mean(losses)), 4),
            "accuracy": round(right.float().mean().item(), 4),
        }
        print(json.dumps(metrics), flush=True)
        state = {
            "network": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "done": epoch,
        }
        save(state, checkpoint)

    if rank > 0:
        return
    save(network.state_dict(), model_folder / "model.pt")
    # The folder of the running file, wherever training runs: the class must be the one just trained.
    shutil.copyfile(Path(__file__).with_name("model.py"), model_folder / "model.py")


if __name__ == "__main__":
    main()
