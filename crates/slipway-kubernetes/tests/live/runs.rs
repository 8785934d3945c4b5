//! Runs: a gang of two, its logs, a failure with a second attempt, and the output back here.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use slipway_kubernetes::Discovery;
use slipway_kubernetes::apply::{Applier, Inventory};
use slipway_kubernetes::reason::RunEnd;
use slipway_kubernetes::runs::{Budget, Progress, RunOptions, RunUpdate, Runs};
use slipway_kubernetes::spec::*;
use slipway_kubernetes::watch::{WatchOptions, Watcher, usual};
use tokio::sync::{mpsc, watch};

use super::bed::{Bed, OWNER, bed, say, wait};

/// Fails in its first attempt, goes on from its checkpoint in the second.
const SCRIPT: &str = r#"
for n in $(seq 1 20); do echo "rank $SLIPWAY_RANK line $n"; done
if [ "$SLIPWAY_RANK" = 1 ]; then echo "$SLIPWAY_RESTART_COUNT" > $SLIPWAY_CHECKPOINT_DIR/last; fi
if [ "$SLIPWAY_RESTART_COUNT" = 0 ]; then echo half > $SLIPWAY_MODEL_DIR/half; fi
if [ "$SLIPWAY_RESTART_COUNT" = 0 ] && [ "$SLIPWAY_RANK" = 1 ]; then sleep 2; echo "no luck"; exit 5; fi
if [ "$SLIPWAY_RESTART_COUNT" = 0 ]; then sleep 30; fi
sleep 1
echo "weights of $(cat $SLIPWAY_CHECKPOINT_DIR/last)" > $SLIPWAY_MODEL_DIR/weights-$SLIPWAY_RANK
sleep 1
echo "done"
"#;

fn run(bed: &Bed) -> TrainingRun {
    TrainingRun {
        run: "Digits 7".into(),
        owner: Some(OWNER.into()),
        project: "digits".into(),
        attempt: 0,
        namespace: bed.namespace.clone(),
        image: ImagePin {
            reference: bed.image.clone(),
            // The cluster's claims are folders of the host, which belong to root.
            run_as: RunAs::Root,
            architectures: Vec::new(),
        },
        tools: bed.image.clone(),
        command: ["/bin/sh", "-c", SCRIPT].map(str::to_owned).into(),
        ranks: 2,
        min_ranks: None,
        processes: 1,
        launcher: Launcher::Torchrun,
        env: Vec::new(),
        environment: Environment::default(),
        resources: PodResources::default(),
        placement: Placement::default(),
        workspace: VolumeSource::Bundled,
        data: None,
        output: Storage::New { size: 64 << 20, class: None, shared: true },
        deadline: Some(300),
        grace: 2,
        gang: Gang::Emulated,
        egress: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_of_two_comes_back_with_its_output() {
    let Some(bed) = bed("gang").await else { return };
    let cluster = bed.cluster().await;
    let applier = Applier::new(cluster.clone(), Arc::new(Discovery::new(cluster.clone())), OWNER);
    let watcher = Watcher::start(&cluster, usual(OWNER, &[]), WatchOptions::default());
    assert!(watcher.store().filled(Duration::from_secs(20)).await, "{:?}", watcher.store().health());
    let inventory = Arc::new(Inventory::new(applier.clone()).unwrap());
    let runs = Runs::new(applier, inventory.clone(), watcher.store().clone(), RunOptions::default());
    let (sender, mut updates) = mpsc::channel(64);
    let (_cancel, cancelled) = watch::channel(false);
    let mut own = run(&bed);
    let driving = {
        let runs = runs.clone();
        tokio::spawn(async move {
            let end = runs
                .drive(
                    &mut own,
                    Progress::default(),
                    Budget { retries: 1 },
                    &|_, _| Ok(()),
                    sender,
                    cancelled,
                )
                .await;
            (end, own)
        })
    };
    let mut lines = Vec::new();
    let mut restarts = Vec::new();
    while let Some(update) = updates.recv().await {
        match update {
            RunUpdate::Line(line) => lines.push(line),
            other => {
                say(&format!("{other:?}"));
                if let RunUpdate::Restart { progress, reason, .. } = other {
                    restarts.push((progress, reason));
                }
            }
        }
    }
    let (end, own) = driving.await.unwrap();
    assert_eq!(end.unwrap(), Some(RunEnd::Succeeded));
    assert_eq!(restarts.len(), 1);
    assert!(
        restarts[0].0.charged == 1 && restarts[0].1.contains("rank 1: container rank ended with exit code 5"),
        "{restarts:?}"
    );
    // Every line of every rank and attempt, once and in order.
    for attempt in 0..2 {
        for rank in 0..2 {
            let own: Vec<&str> = lines
                .iter()
                .filter(|l| l.attempt == attempt && l.rank == rank)
                .map(|l| l.text.as_str())
                .collect();
            let expected: Vec<String> = (1..=20).map(|n| format!("rank {rank} line {n}")).collect();
            assert_eq!(&own[..20], expected, "attempt {attempt}, rank {rank}");
            let last = match (attempt, rank) {
                (0, 1) => Some("no luck"),
                (1, _) => Some("done"),
                _ => None,
            };
            assert!(last.is_none_or(|last| own[20..] == [last]), "{own:?}");
        }
    }
    let mut tar = Vec::new();
    let size = runs.collect(&own, &mut tar).await.unwrap();
    assert_eq!(size, tar.len() as u64);
    let mut found = BTreeSet::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        found.insert((entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned(), text));
    }
    // The first rank's own, of the last attempt alone.
    let expected = [("model", ""), ("model/weights-0", "weights of 1\n")];
    assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());

    runs.remove("Digits 7").await.unwrap();
    wait("nothing is left", 60, async || {
        let left = inventory.members(None).await.unwrap();
        let pods = watcher.store().snapshot().of("Pod").len();
        if left.is_empty() && pods == 0 { Ok(()) } else { Err(format!("{pods} pods, {left:?}")) }
    })
    .await;
    assert!(inventory.remove_if_empty().await.unwrap());
    bed.end().await;
}
