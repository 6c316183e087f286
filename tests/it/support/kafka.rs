//! Kafka for tests: librdkafka's own mock of a cluster, and real brokers where there are any. `tests/kafka.sh` names one.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::postgres_server::free_port;
use super::wait_until;

/// How long brokers may take to do what they are asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// Brokers.
pub enum Kafka {
    Mock(MockCluster<'static, DefaultProducerContext>),
    /// The program `tansu`, with all in memory.
    Tansu {
        program: String,
        port: u16,
        guardian: Child,
    },
    /// Brokers of others.
    There(String),
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if let Self::Tansu { guardian, .. } = self {
            drop(guardian.stdin.take());
            let _ = guardian.wait();
        }
    }
}

impl Kafka {
    pub fn mock() -> Self {
        Self::Mock(MockCluster::new(1).expect("a mock cluster"))
    }

    /// All kinds that there are here.
    pub fn every() -> Vec<Self> {
        let there = std::env::var("KAFKA_BROKERS").ok().map(Self::There);
        let tansu = std::env::var("FOREBAY_TANSU").ok().map(Self::tansu);
        if tansu.is_none() && there.is_none() {
            println!("only over the mock cluster: neither FOREBAY_TANSU nor KAFKA_BROKERS is set");
        }
        [Self::mock()].into_iter().chain(tansu).chain(there).collect()
    }

    fn tansu(program: String) -> Self {
        let port = free_port();
        let url = format!("tcp://127.0.0.1:{port}");
        // A guardian ends it when the tests end, however they do.
        let script = "\"$@\" </dev/null & pid=$!; cat >/dev/null; kill -9 $pid; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", &program, "broker", "--silent", "--storage-engine", "memory://tansu/"]);
        command.args(["--listener-url", &url, "--advertised-listener-url", &url]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guardian = command.spawn().expect("sh");
        wait_until(|| TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self::Tansu { program, port, guardian }
    }

    pub fn servers(&self) -> String {
        match self {
            Self::Mock(cluster) => cluster.bootstrap_servers(),
            Self::Tansu { port, .. } => format!("127.0.0.1:{port}"),
            Self::There(servers) => servers.clone(),
        }
    }

    /// Makes a topic with so many partitions; brokers of others do so when a record comes.
    pub fn make_topic(&self, topic: &str, partitions: i32) {
        match self {
            Self::Mock(cluster) => cluster.create_topic(topic, partitions, 1).expect("a topic"),
            Self::Tansu { program, port, .. } => {
                let mut command = Command::new(program);
                command.args(["topic", "create", topic, "--partitions", &partitions.to_string(), "--broker"]);
                let made = command.arg(format!("tcp://127.0.0.1:{port}")).output().expect("tansu");
                assert!(made.status.success(), "{made:?}");
            }
            Self::There(_) => {}
        }
    }

    pub fn producer(&self, settings: &[(&str, &str)]) -> BaseProducer {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers()).set("linger.ms", "1");
        if matches!(self, Self::Tansu { .. }) {
            // Asked for the end of a partition, it says where the second record of the last batch is.
            config.set("batch.num.messages", "1");
        }
        for (name, value) in settings {
            config.set(*name, *value);
        }
        config.create().expect("a producer")
    }

    /// Adds records with these values to partition 0 of the topic.
    pub fn add(&self, topic: &str, values: impl IntoIterator<Item = Option<String>>) {
        let producer = self.producer(&[]);
        send(&producer, topic, values);
    }

    /// The offset that a group is told.
    pub fn told(&self, group: &str, topic: &str) -> Option<i64> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.servers()).set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        let told = consumer.committed_offsets(list, PATIENCE).expect("the group");
        match told.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

/// Sends records to partition 0, and waits until they are there.
pub fn send(producer: &BaseProducer, topic: &str, values: impl IntoIterator<Item = Option<String>>) {
    for value in values {
        let record = || {
            let record = BaseRecord::<str, str>::to(topic).partition(0).key("k");
            match &value {
                Some(value) => record.payload(value),
                None => record,
            }
        };
        wait_until(|| {
            let is_taken = producer.send(record()).is_ok();
            producer.poll(Duration::ZERO);
            is_taken
        });
    }
    producer.flush(PATIENCE).expect("the records");
}
