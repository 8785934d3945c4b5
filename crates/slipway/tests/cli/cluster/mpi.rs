//! MPI across pods: processes on every rank, a failure of one, and the end of all.

use super::Cluster;
use super::engine::use_cluster;
use super::train::{end, run, wait_for_line};
use crate::support::{Slipway, mpi_tar};

const GANG: &str = r#"
import os, time
from mpi4py import MPI
world = MPI.COMM_WORLD
rank, size = world.Get_rank(), world.Get_size()
total = world.allreduce(rank)
print(f"process {rank} of {size} on rank {os.environ['SLIPWAY_RANK']}, sum {total}", flush=True)
if rank == 3 and int(os.environ["SLIPWAY_RESTART_COUNT"]) < int(os.environ.get("FAIL", "0")):
    world.Abort(9)
time.sleep(int(os.environ.get("SECONDS", "0")))
if rank == 0:
    folder = os.environ["SLIPWAY_MODEL_DIR"]
    open(f"{folder}/model.py", "w").write("class Model:\n    def __init__(self, folder):\n        pass\n    def predict(self, inputs):\n        return inputs\n")
"#;

#[test]
fn processes_of_mpi_meet_across_pods() {
    let Some(cluster) = Cluster::connect("mpi") else { return };
    let s = Slipway::new();
    s.run(&["import", mpi_tar().to_str().unwrap(), "mpi"]).ok();
    s.write("p/Dockerfile", "FROM mpi\n");
    s.write("p/train.py", GANG);
    s.write(
        "p/slipway.toml",
        "name = \"mpi\"\n[train]\ncommand = [\"python3\", \"train.py\"]\nranks = 2\nprocesses = 2\nlauncher = \"mpi\"\n\
         storage = \"64m\"\n[model]\nformat = \"python\"\nentry = \"model:Model\"\n",
    );
    s.run(&["build", "-t", "slipway/mpi:latest", "p"]).ok();
    use_cluster(&s, &cluster);
    let trained = s.run(&["train", "--project", "p", "--retries", "1", "-e", "FAIL=1"]);
    assert_eq!(trained.code, 0, "{}\n{}\n{}", trained.stdout, trained.stderr, cluster.state());
    for process in 0..4 {
        // Two processes a pod, and all of them have heard of each other.
        let line = format!("[rank 0] process {process} of 4 on rank {}, sum 6", process / 2);
        let found = trained.stdout.lines().filter(|found| *found == line).count();
        assert_eq!(found, 2, "{line}: {}", trained.stdout);
    }
    assert!(trained.stderr.contains("attempt 2 begins: rank 0"), "{}", trained.stderr);
    let shown = run(&s, "mpi-1");
    assert_eq!((&shown["state"], &shown["attempt"]), (&"succeeded".into(), &2.into()));
    let id = s.run(&["train", "--project", "p", "-d", "-e", "SECONDS=600"]).ok();
    let id = id.trim();
    wait_for_line(&s, id, "[rank 0] process 3 of 4");
    s.run(&["runs", "--cancel", id]).ok();
    assert_eq!(run(&s, id)["state"], "cancelled");
    end(s, &cluster);
}
