//! One partition of a topic: where it begins and ends, what is behind an anchor, and what its servers say.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientContext, Message};

use super::plan::KafkaPlan;
use super::record::{Anchor, Record};

/// How long a server may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Errors that are taken to learn why it does not answer.
const ERRORS_MAX: usize = 16;
/// The group of a consumer that is told of no offsets. librdkafka wants one, and asks nothing of it.
const NO_GROUP: &str = "forebay";
/// How long an end is waited for. What librdkafka still waits for then, such as an answer of a group, ends with the program.
pub(super) const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Settings that count unless others are given. KiB that are fetched ahead, and how long a server waits for records.
const DEFAULTS: [(&str, &str); 3] =
    [("client.id", "forebay"), ("queued.max.messages.kbytes", "8192"), ("fetch.wait.max.ms", "250")];
/// Settings that are ours: `plan` has the reasons.
const OURS: [(&str, &str); 6] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("isolation.level", "read_committed"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "true"),
    ("check.crcs", "true"),
];

/// Why there are no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nothing is wrong: it is looked at once more.
    Anew,
    /// It may do better in a while.
    Again(String),
    /// There is no such topic: it may be made.
    NoTopic,
    /// It will do no better.
    Refused(String),
    /// The partition is not what it was.
    Gone(String),
}

/// What librdkafka says between records.
#[derive(Default)]
pub(super) struct Said {
    error: Mutex<Option<(Option<RDKafkaErrorCode>, String)>>,
    /// What came of telling the group.
    pub(super) committed: Mutex<Option<KafkaResult<()>>>,
}

impl ClientContext for Said {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!("librdkafka: {facility} {text}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // That all servers are away says less than why the last one is.
        if code != Some(RDKafkaErrorCode::AllBrokersDown) && code != Some(RDKafkaErrorCode::PartitionEOF) {
            *self.error.lock().unwrap_or_else(PoisonError::into_inner) = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Said {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        *self.committed.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
    }
}

/// What librdkafka is given.
pub(super) fn settings_of(plan: &KafkaPlan) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (name, value) in DEFAULTS.into_iter().chain(plan.settings()).chain(OURS) {
        config.set(name, value);
    }
    if plan.group().is_none() {
        config.set("group.id", NO_GROUP);
    }
    config.set("bootstrap.servers", &plan.servers);
    config
}

/// What comes next.
pub(super) enum Polled {
    Record(Record),
    /// The end, for now.
    End,
    /// Nothing has come.
    Nothing,
}

/// A partition that is read.
pub(super) struct Partition {
    topic: String,
    number: i32,
    consumer: BaseConsumer<Said>,
    /// The first offset, and the one behind the last.
    pub(super) low: i64,
    pub(super) high: i64,
}

impl Partition {
    /// Asks where the partition begins and ends. Blocks.
    pub(super) fn open(plan: &KafkaPlan) -> Result<Self, Trouble> {
        let consumer: BaseConsumer<Said> =
            settings_of(plan).create_with_context(Said::default()).map_err(|error| Trouble::Refused(shown(&error)))?;
        let mut opened = Self { topic: plan.topic.clone(), number: plan.number(), consumer, low: 0, high: 0 };
        opened.check_topic(plan)?;
        (opened.low, opened.high) = opened.ends()?;
        Ok(opened)
    }

    fn check_topic(&self, plan: &KafkaPlan) -> Result<(), Trouble> {
        let answer = self.consumer.fetch_metadata(Some(&self.topic), ANSWER_MAX);
        let metadata = answer.map_err(|error| self.trouble(&error))?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic);
        let topic = topic.ok_or(Trouble::NoTopic)?;
        if let Some(error) = topic.error() {
            return Err(self.of_code(error.into()));
        }
        let count = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
        if count == 0 {
            return Err(Trouble::NoTopic);
        }
        if count > 1 && plan.partition.is_none() {
            return Err(Trouble::Refused(format!(
                "the topic has {count} partitions: say which one is read, such as partition = 0"
            )));
        }
        if self.number >= count {
            return Err(Trouble::Refused(format!(
                "there is no partition {}: the topic has {count}, from 0",
                self.number
            )));
        }
        Ok(())
    }

    /// The first offset, and the one behind the last. Blocks.
    pub(super) fn ends(&self) -> Result<(i64, i64), Trouble> {
        let ends = self.consumer.fetch_watermarks(&self.topic, self.number, ANSWER_MAX);
        ends.map_err(|error| self.trouble(&error))
    }

    /// Begins behind the anchor, and with it if it is there; or with the first record.
    ///
    /// # Errors
    /// Records behind the anchor are gone.
    pub(super) fn begin(&self, anchor: Option<Anchor>) -> Result<(), Trouble> {
        let (low, high) = (self.low, self.high);
        let from = match anchor {
            None => low,
            Some(anchor) if low > anchor.next => {
                return Err(Trouble::Gone(format!(
                    "it begins at offset {low}, and was read up to offset {}: records between them were taken out unread. \
                     Keep them for longer (retention.ms, retention.bytes); a pipeline of another name begins with what there \
                     is",
                    anchor.next - 1
                )));
            }
            Some(anchor) if high < anchor.next => {
                return Err(Trouble::Gone(format!(
                    "it ends before offset {high}, and was read up to offset {}: the topic was made anew, or its servers \
                     have lost records. A pipeline of another name begins with what there is",
                    anchor.next - 1
                )));
            }
            Some(anchor) if low > anchor.offset => anchor.next,
            Some(anchor) => anchor.offset,
        };
        let mut list = TopicPartitionList::new();
        let set = list.add_partition_offset(&self.topic, self.number, Offset::Offset(from));
        set.and_then(|()| self.consumer.assign(&list)).map_err(|error| Trouble::Refused(shown(&error)))
    }

    /// The next record, if it comes within that time. Blocks.
    pub(super) fn poll(&self, wait: Duration) -> Result<Polled, Trouble> {
        match self.consumer.poll(wait) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => Ok(Polled::Record(record_of(&message))),
            Some(Err(KafkaError::PartitionEOF(_))) => Ok(Polled::End),
            Some(Err(error)) => match error.rdkafka_error_code() {
                // What is asked of a group is nothing to whoever reads.
                Some(RDKafkaErrorCode::GroupAuthorizationFailed | RDKafkaErrorCode::PollExceeded) => {
                    Ok(Polled::Nothing)
                }
                // One server of several: if no other does, the next question fails.
                Some(
                    RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::SSL,
                ) => Err(Trouble::Again(shown(&error))),
                code => Err(self.of_code_with(code, &shown(&error))),
            },
        }
    }

    /// Behind all that has come, be it records or what stands between them.
    pub(super) fn position(&self) -> Option<i64> {
        let list = self.consumer.position().ok()?;
        match list.find_partition(&self.topic, self.number)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// What it means that a question has failed, with what librdkafka knows of it. Records that have come are thrown away:
    /// who asked begins anew.
    fn trouble(&self, error: &KafkaError) -> Trouble {
        // Lines of its log come in between, as nothing.
        for _ in 0..ERRORS_MAX {
            drop(self.consumer.poll(Duration::ZERO));
        }
        self.of_code_with(error.rdkafka_error_code(), &shown(error))
    }

    fn of_code(&self, code: RDKafkaErrorCode) -> Trouble {
        self.of_code_with(Some(code), &code.to_string())
    }

    fn of_code_with(&self, code: Option<RDKafkaErrorCode>, text: &str) -> Trouble {
        use RDKafkaErrorCode as Code;
        let said = self.consumer.context().error.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (said_code, text) = said.map_or((None, text.to_owned()), |(code, text)| (code, text));
        for code in [code, said_code].into_iter().flatten() {
            match code {
                Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => return Trouble::NoTopic,
                Code::OffsetOutOfRange | Code::AutoOffsetReset => {
                    return Trouble::Gone(format!(
                        "records were taken out before they were read, or the topic was made anew ({text}). Keep them for \
                         longer (retention.ms, retention.bytes); a pipeline of another name begins with what there is"
                    ));
                }
                Code::LogTruncation => {
                    return Trouble::Gone(format!(
                        "its servers have lost records that were read ({text}). A pipeline of another name begins with what \
                         there is"
                    ));
                }
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::UnsupportedSASLMechanism
                | Code::SSL
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::InvalidTopic
                | Code::BadMessage
                | Code::BadCompression
                | Code::UnsupportedCompressionType
                | Code::NotImplemented
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::MessageSizeTooLarge
                | Code::UnsupportedFeature
                | Code::UnsupportedVersion
                | Code::Fatal
                | Code::InvalidArgument => return Trouble::Refused(text),
                _ => {}
            }
        }
        Trouble::Again(text)
    }
}

fn record_of(message: &BorrowedMessage<'_>) -> Record {
    Record::new(message.offset(), message.timestamp().to_millis(), message.key(), message.payload())
}

/// An error without the value of a setting, which may be secret.
pub(super) fn shown(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, text, name, _) if !text.contains(name.as_str()) => format!("{name}: {text}"),
        KafkaError::ClientConfig(_, text, ..) | KafkaError::ClientCreation(text) => text.clone(),
        other => other.rdkafka_error_code().map_or_else(|| other.to_string(), |code| code.to_string()),
    }
}
