//! What starts the ranks of a run together: what was asked for, of what the cluster has.

use slipway_types::run::{self, GangBy};

use super::Runs;
use crate::client::{ApiError, DiscoverError, Selection};
use crate::spec::Gang;

const JOBSET: &str = "jobset.x-k8s.io";
const KUEUE: &str = "kueue.x-k8s.io";
const VOLCANO: &str = "scheduling.volcano.sh";
const SCHEDULING: &str = "scheduling.k8s.io";
/// The queue that Kueue itself takes where none is named.
const DEFAULT_QUEUE: &str = "default";

/// What a cluster offers to a user in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// JobSets.
    pub jobset: bool,
    /// LocalQueues of the namespace; nothing where there is no Kueue, or it cannot be asked.
    pub kueue: Option<Vec<String>>,
    /// Volcano.
    pub volcano: bool,
    /// The scheduler's own PodGroup.
    pub pod_group: bool,
}

/// Why nothing can start a gang as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum GangError {
    /// The cluster does not say what it has.
    #[error("it is not known what the cluster starts gangs with")]
    Discover(#[from] DiscoverError),
    /// Or not this much.
    #[error("the cluster does not tell which queues it has")]
    Queues(#[source] ApiError),
    /// It has no such thing.
    #[error("the cluster has no {0}, which `train.gang` asks for: install it, or leave out `train.gang`")]
    NotServed(&'static str),
    /// There is no queue of that name.
    #[error("the namespace has no queue `{queue}`: {}", told(.there))]
    NoQueue {
        /// The name.
        queue: String,
        /// Those that there are.
        there: Vec<String>,
    },
    /// There is more than one, or none.
    #[error("`train.queue` must name the queue: {}", told(.0))]
    WhichQueue(Vec<String>),
}

impl GangError {
    /// Whether the same may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Discover(DiscoverError::Api(error)) | Self::Queues(error) => error.is_transient(),
            _ => false,
        }
    }
}

fn told(queues: &[String]) -> String {
    match queues {
        [] => "there is none in it".to_owned(),
        some => format!("there is {}", some.join(", ")),
    }
}

/// What starts a gang. Where nothing is asked for: Kueue where the namespace has a queue of it, since whoever made that wants
/// runs to wait in it; for several ranks else what schedules all or none of them; else a JobSet; else nothing.
pub fn choose(asked: &run::Gang, offer: &Offer) -> Result<Gang, GangError> {
    let queue = asked.queue.clone();
    let queues = offer.kueue.as_deref().unwrap_or_default();
    match asked.by {
        GangBy::None => Ok(Gang::Emulated),
        GangBy::JobSet if offer.jobset => Ok(Gang::JobSet),
        GangBy::JobSet => Err(GangError::NotServed("JobSet")),
        GangBy::Volcano if offer.volcano => Ok(Gang::Volcano { queue }),
        GangBy::Volcano => Err(GangError::NotServed("Volcano")),
        GangBy::PodGroup if offer.pod_group => Ok(Gang::PodGroup),
        GangBy::PodGroup => Err(GangError::NotServed("PodGroup of the scheduler's own")),
        GangBy::Kueue if offer.kueue.is_none() => Err(GangError::NotServed("Kueue")),
        GangBy::Kueue => match queue {
            Some(queue) if queues.contains(&queue) => Ok(Gang::Kueue { queue }),
            Some(queue) => Err(GangError::NoQueue { queue, there: queues.to_vec() }),
            None => match usual(queues) {
                Some(queue) => Ok(Gang::Kueue { queue }),
                None => Err(GangError::WhichQueue(queues.to_vec())),
            },
        },
        GangBy::Auto => match queue {
            Some(queue) if queues.contains(&queue) => Ok(Gang::Kueue { queue }),
            Some(queue) if offer.volcano => Ok(Gang::Volcano { queue: Some(queue) }),
            Some(queue) => Err(GangError::NoQueue { queue, there: queues.to_vec() }),
            None => Ok(unasked(asked.ranks, queues, offer)),
        },
    }
}

fn unasked(ranks: u32, queues: &[String], offer: &Offer) -> Gang {
    match usual(queues) {
        Some(queue) => Gang::Kueue { queue },
        None if ranks == 1 => Gang::Emulated,
        None if offer.volcano => Gang::Volcano { queue: None },
        None if offer.pod_group => Gang::PodGroup,
        None if offer.jobset => Gang::JobSet,
        None => Gang::Emulated,
    }
}

/// The queue that is meant where none is named.
fn usual(queues: &[String]) -> Option<String> {
    match queues {
        [only] => Some(only.clone()),
        several => several.iter().find(|queue| *queue == DEFAULT_QUEUE).cloned(),
    }
}

/// The object that is an attempt, as group and kind.
pub(super) fn object(gang: &Gang) -> (&'static str, &'static str) {
    match gang {
        Gang::JobSet => (JOBSET, "JobSet"),
        _ => ("batch", "Job"),
    }
}

/// The object that is beside it for the scheduler.
pub(super) fn group(gang: &Gang) -> Option<(&'static str, &'static str)> {
    match gang {
        Gang::Volcano { .. } => Some((VOLCANO, "PodGroup")),
        Gang::PodGroup => Some((SCHEDULING, "PodGroup")),
        Gang::Emulated | Gang::JobSet | Gang::Kueue { .. } => None,
    }
}

impl Runs {
    /// What starts a gang in this cluster. What is only there is used where this user may; what is asked for in any case,
    /// so that a refusal says what may not be done.
    pub async fn gang(&self, asked: &run::Gang) -> Result<Gang, GangError> {
        if asked.by == GangBy::None {
            return Ok(Gang::Emulated);
        }
        match choose(asked, &self.offer(asked).await?) {
            // It may have been installed since the cluster was asked.
            Err(GangError::NotServed(_)) => {
                self.applier.discovery().refresh();
                choose(asked, &self.offer(asked).await?)
            }
            other => other,
        }
    }

    async fn offer(&self, asked: &run::Gang) -> Result<Offer, GangError> {
        let caps = self.applier.discovery().capabilities().await?;
        let (jobset, pod_group) = (caps.jobset.is_some(), caps.pod_group.is_some());
        if asked.by != GangBy::Auto {
            let wanted = caps.kueue && asked.by == GangBy::Kueue;
            let kueue = if wanted { Some(self.queues().await?) } else { None };
            return Ok(Offer { jobset, kueue, volcano: caps.volcano, pod_group });
        }
        let kueue = match self.may(caps.kueue, "list", KUEUE, "localqueues").await? {
            true => Some(self.queues().await?),
            false => None,
        };
        Ok(Offer {
            kueue,
            volcano: self.may(caps.volcano, "create", VOLCANO, "podgroups").await?,
            pod_group: self.may(pod_group, "create", SCHEDULING, "podgroups").await?,
            jobset: self.may(jobset, "create", JOBSET, "jobsets").await?,
        })
    }

    async fn may(&self, served: bool, verb: &str, group: &str, plural: &str) -> Result<bool, GangError> {
        let cluster = self.applier.cluster();
        Ok(served && cluster.may(verb, group, plural).await.map_err(DiscoverError::from)?)
    }

    async fn queues(&self) -> Result<Vec<String>, GangError> {
        let resource = match self.applier.discovery().resource_of_group(KUEUE, "LocalQueue").await {
            Ok(resource) => resource,
            Err(DiscoverError::NoKind { .. }) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let cluster = self.applier.cluster();
        let selection = Selection { metadata_only: true, ..Selection::default() };
        let listed = cluster.list(&resource, cluster.namespace(), &selection).await;
        let listed = listed.map_err(GangError::Queues)?.items;
        let name = |queue: &serde_json::Value| queue["metadata"]["name"].as_str().map(str::to_owned);
        Ok(listed.iter().filter_map(name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(by: GangBy, queue: Option<&str>) -> run::Gang {
        run::Gang { ranks: 2, by, queue: queue.map(str::to_owned), ..run::Gang::default() }
    }

    fn all(queues: &[&str]) -> Offer {
        let kueue = Some(queues.iter().map(|queue| (*queue).to_owned()).collect());
        Offer { jobset: true, kueue, volcano: true, pod_group: true }
    }

    fn kueue(queue: &str) -> Gang {
        Gang::Kueue { queue: queue.into() }
    }

    #[test]
    fn takes_what_there_is() {
        let auto = asked(GangBy::Auto, None);
        let mut offer = all(&["gpus"]);
        let mut found = vec![choose(&auto, &offer).unwrap()];
        offer.kueue = Some(Vec::new());
        found.push(choose(&auto, &offer).unwrap());
        offer.volcano = false;
        found.push(choose(&auto, &offer).unwrap());
        offer.pod_group = false;
        found.push(choose(&auto, &offer).unwrap());
        offer.jobset = false;
        found.push(choose(&auto, &offer).unwrap());
        let expected =
            [kueue("gpus"), Gang::Volcano { queue: None }, Gang::PodGroup, Gang::JobSet, Gang::Emulated];
        assert_eq!(found, expected);
    }

    #[test]
    fn one_rank_only_waits_in_queues() {
        let alone = run::Gang { ranks: 1, ..asked(GangBy::Auto, None) };
        assert_eq!(choose(&alone, &all(&["gpus"])).unwrap(), kueue("gpus"));
        assert_eq!(choose(&alone, &all(&[])).unwrap(), Gang::Emulated);
    }

    #[test]
    fn queues_are_named_or_clear() {
        let auto = |queue| choose(&asked(GangBy::Auto, queue), &all(&["a", "default"]));
        assert_eq!(auto(None).unwrap(), kueue("default"));
        assert_eq!(auto(Some("a")).unwrap(), kueue("a"));
        assert_eq!(auto(Some("b")).unwrap(), Gang::Volcano { queue: Some("b".into()) });
        let forced = |queue, offer: &Offer| choose(&asked(GangBy::Kueue, queue), offer);
        let error = forced(None, &all(&["a", "b"])).unwrap_err().to_string();
        assert!(error.contains("train.queue") && error.contains("a, b"), "{error}");
        let error = forced(Some("c"), &all(&["a"])).unwrap_err().to_string();
        assert!(error.contains("no queue `c`") && error.contains("there is a"), "{error}");
        let error = forced(None, &all(&[])).unwrap_err().to_string();
        assert!(error.contains("there is none"), "{error}");
        let none = Offer { volcano: false, ..all(&["a"]) };
        let typo = choose(&asked(GangBy::Auto, Some("b")), &none).unwrap_err();
        assert!(matches!(typo, GangError::NoQueue { .. }), "it does not start elsewhere: {typo}");
    }

    #[test]
    fn what_is_asked_for_and_not_there_is_refused() {
        for by in [GangBy::JobSet, GangBy::Kueue, GangBy::Volcano, GangBy::PodGroup] {
            let refused = choose(&asked(by, None), &Offer::default()).unwrap_err();
            assert!(matches!(refused, GangError::NotServed(_)) && !refused.is_transient(), "{by}");
            assert!(choose(&asked(by, None), &all(&["a"])).is_ok(), "{by}");
        }
        assert_eq!(choose(&asked(GangBy::None, None), &all(&["a"])).unwrap(), Gang::Emulated);
    }
}
