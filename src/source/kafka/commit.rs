//! Telling a consumer group what is committed, for those who watch how far it is.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::partition::{CLOSE_MAX, Said, settings_of, shown};
use super::plan::KafkaPlan;
use super::record::Anchor;
use crate::model::limits::WAIT_STEP;
use crate::source::{Acknowledge, Position};

/// How long the group may take, shorter than the end of a run waits.
const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Tells the group. It reads nothing from it: where a run begins stands in the database.
pub(super) struct Group {
    plan: KafkaPlan,
    name: String,
    /// None only while it is dropped.
    consumer: Option<BaseConsumer<Said>>,
    has_failed: bool,
}

impl Drop for Group {
    /// A consumer waits for answers to what it was told, for a minute and longer.
    fn drop(&mut self) {
        let (closed, is_closed) = bounded::<()>(0);
        let consumer = self.consumer.take();
        // Contract of the thread. In: a consumer that is used no more. Out: nothing, but it hangs up when that is closed.
        // Writes nothing. Ends: with the consumer, or with the program.
        let close = move || {
            drop(consumer);
            drop(closed);
        };
        if std::thread::Builder::new().name("forebay-kafka-end".into()).spawn(close).is_ok() {
            let _ = is_closed.recv_timeout(CLOSE_MAX);
        }
    }
}

impl Group {
    /// Connects to nothing yet.
    pub(super) fn new(plan: &KafkaPlan, name: &str) -> Result<Self, String> {
        let consumer = settings_of(plan).create_with_context(Said::default()).map_err(|error| shown(&error))?;
        Ok(Self { plan: plan.clone(), name: name.to_owned(), consumer: Some(consumer), has_failed: false })
    }

    fn tell(&self, next: i64) -> Result<(), String> {
        let Some(consumer) = &self.consumer else { return Ok(()) };
        let mut list = TopicPartitionList::new();
        let set = list.add_partition_offset(&self.plan.topic, self.plan.number(), Offset::Offset(next));
        set.map_err(|error| shown(&error))?;
        let committed = || consumer.context().committed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let begun = Instant::now();
        let mut cause = None;
        while begun.elapsed() < ANSWER_MAX {
            // What came of an older one.
            committed();
            consumer.commit(&list, CommitMode::Async).map_err(|error| shown(&error))?;
            let answer = loop {
                if let Some(answer) = committed() {
                    break Some(answer);
                }
                if begun.elapsed() >= ANSWER_MAX {
                    break None;
                }
                let _ = consumer.poll(WAIT_STEP);
            };
            let Some(answer) = answer else { break };
            let Err(error) = answer else { return Ok(()) };
            cause = Some(shown(&error));
            if !is_passing(error.rdkafka_error_code()) {
                break;
            }
            std::thread::park_timeout(WAIT_STEP);
        }
        Err(cause.unwrap_or_else(|| format!("no answer within {} s", ANSWER_MAX.as_secs())))
    }
}

/// Whether the servers only have to find out who answers for the group.
fn is_passing(code: Option<RDKafkaErrorCode>) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Some(
            Code::CoordinatorLoadInProgress
                | Code::CoordinatorNotAvailable
                | Code::NotCoordinator
                | Code::WaitingForCoordinator
                | Code::BrokerTransportFailure
                | Code::OperationTimedOut
                | Code::RequestTimedOut
        )
    )
}

impl Acknowledge for Group {
    fn committed(&mut self, position: &Position) {
        let Some((partition, anchor)) = Anchor::parse(position.as_str()) else { return };
        if partition != self.name {
            return;
        }
        match self.tell(anchor.next) {
            Ok(()) => self.has_failed = false,
            Err(cause) => {
                if !std::mem::replace(&mut self.has_failed, true) {
                    let (name, group) = (self.plan.name(), self.plan.group().unwrap_or_default());
                    tracing::warn!("{name}: the group {group} was not told what is committed: {cause}");
                }
            }
        }
    }
}
