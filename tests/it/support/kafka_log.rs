//! A broker of Kafka whose one partition holds what a test writes: gaps that compaction leaves, marks of transactions, ends
//! that differ. It speaks the few requests that a consumer needs, in one version of each.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Requests by their numbers, with the version of each that is spoken. That of Produce says that batches are new ones.
const SPOKEN: [(i16, i16); 5] = [(0, 3), (1, 4), (2, 2), (3, 4), (18, 0)];
const UNSUPPORTED_VERSION: i16 = 35;
const OFFSET_OUT_OF_RANGE: i16 = 1;
const READ_COMMITTED: u8 = 1;

/// Records that were written together.
#[derive(Clone)]
pub struct Batch {
    first: i64,
    last: i64,
    bytes: Vec<u8>,
}

/// What a batch is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// Of a transaction of that producer.
    Transaction(i64),
    /// The mark of its end; true if it is kept.
    End(i64, bool),
}

impl Batch {
    /// A batch of the offsets `first` to `last`, with records at some of them.
    pub fn new(kind: Kind, first: i64, last: i64, records: &[(i64, &str)]) -> Self {
        let mut body = Vec::new();
        let (attributes, producer) = match kind {
            Kind::Plain => (0_i16, -1_i64),
            Kind::Transaction(producer) => (0x10, producer),
            Kind::End(producer, _) => (0x30, producer),
        };
        put(&mut body, &attributes.to_be_bytes());
        put(&mut body, &delta(first, last).to_be_bytes());
        put(&mut body, &1_700_000_000_000_i64.to_be_bytes());
        put(&mut body, &1_700_000_000_000_i64.to_be_bytes());
        put(&mut body, &producer.to_be_bytes());
        put(&mut body, &0_i16.to_be_bytes());
        put(&mut body, &0_i32.to_be_bytes());
        match kind {
            Kind::End(_, is_kept) => {
                put(&mut body, &1_i32.to_be_bytes());
                put_record(&mut body, 0, &[0, 0, 0, u8::from(is_kept)], &[0; 6]);
            }
            _ => {
                put(&mut body, &i32::try_from(records.len()).expect("few").to_be_bytes());
                for (offset, value) in records {
                    put_record(&mut body, delta(first, *offset).into(), b"k", value.as_bytes());
                }
            }
        }
        let mut bytes = first.to_be_bytes().to_vec();
        put(&mut bytes, &i32::try_from(body.len() + 9).expect("small").to_be_bytes());
        put(&mut bytes, &0_i32.to_be_bytes());
        bytes.push(2);
        put(&mut bytes, &crc32c(&body).to_be_bytes());
        put(&mut bytes, &body);
        Self { first, last, bytes }
    }

    /// The same with another last byte.
    pub fn damaged(mut self) -> Self {
        if let Some(last) = self.bytes.last_mut() {
            *last ^= 1;
        }
        self
    }
}

fn delta(first: i64, offset: i64) -> i32 {
    i32::try_from(offset - first).expect("a small batch")
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(bytes);
}

fn put_varint(to: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        to.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    to.push(rest as u8);
}

fn put_record(to: &mut Vec<u8>, offset_delta: i64, key: &[u8], value: &[u8]) {
    let mut record = vec![0];
    put_varint(&mut record, 0);
    put_varint(&mut record, offset_delta);
    for part in [key, value] {
        put_varint(&mut record, i64::try_from(part.len()).expect("short"));
        put(&mut record, part);
    }
    put_varint(&mut record, 0);
    put_varint(to, i64::try_from(record.len()).expect("short"));
    put(to, &record);
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
    })
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    put(to, &i16::try_from(text.len()).expect("short").to_be_bytes());
    put(to, text.as_bytes());
}

/// The partition.
#[derive(Default)]
pub struct Log {
    /// The first offset.
    pub low: i64,
    /// The one behind the last record that is whole on all servers.
    pub high: i64,
    /// The one behind the last record that belongs to no open transaction.
    pub stable: i64,
    /// The end as far as a leader knows it who has just become one.
    pub lagging: Option<i64>,
    /// Such a leader comes once the end was asked for.
    pub then_lagging: Option<i64>,
    pub batches: Vec<Batch>,
    /// Whether it hangs up on whoever asks.
    pub is_away: bool,
    /// Producers whose transactions were taken back, with the first offset of each.
    pub taken_back: Vec<(i64, i64)>,
}

/// The broker. Its threads end with the test.
pub struct KafkaLog {
    pub port: u16,
    log: Arc<Mutex<Log>>,
}

impl KafkaLog {
    pub fn start(log: Log) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let log = Arc::new(Mutex::new(log));
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let log = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, port, &log));
            }
        });
        Self { port, log }
    }

    /// To look at, and to change.
    pub fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers requests until the other end hangs up.
fn serve(mut stream: TcpStream, port: u16, log: &Mutex<Log>) {
    let mut size = [0; 4];
    while stream.read_exact(&mut size).is_ok() {
        let mut request = vec![0; usize::try_from(u32::from_be_bytes(size)).expect("a size")];
        if stream.read_exact(&mut request).is_err() {
            return;
        }
        if log.lock().unwrap_or_else(PoisonError::into_inner).is_away {
            return;
        }
        let (key, version) = (i16_at(&request, 0), i16_at(&request, 2));
        let mut answer = request[4..8].to_vec();
        let client = usize::try_from(i16_at(&request, 8).max(0)).expect("a length");
        let body = &request[10 + client..];
        match key {
            1 => answer_fetch(body, log, &mut answer),
            2 => answer_ends(body, log, &mut answer),
            3 => answer_metadata(port, &mut answer),
            18 => {
                put(&mut answer, &(if version == 0 { 0 } else { UNSUPPORTED_VERSION }).to_be_bytes());
                put(&mut answer, &5_i32.to_be_bytes());
                for (key, version) in SPOKEN {
                    [key, version, version].iter().for_each(|number| put(&mut answer, &number.to_be_bytes()));
                }
            }
            _ => return,
        }
        let size = u32::try_from(answer.len()).expect("a size").to_be_bytes();
        if stream.write_all(&[&size[..], &answer].concat()).is_err() {
            return;
        }
    }
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// One broker, one topic `log` of one partition.
fn answer_metadata(port: u16, answer: &mut Vec<u8>) {
    put(answer, &0_i32.to_be_bytes());
    put(answer, &1_i32.to_be_bytes());
    put(answer, &1_i32.to_be_bytes());
    put_text(answer, "127.0.0.1");
    put(answer, &i32::from(port).to_be_bytes());
    put(answer, &(-1_i16).to_be_bytes());
    put(answer, &(-1_i16).to_be_bytes());
    put(answer, &1_i32.to_be_bytes());
    put(answer, &1_i32.to_be_bytes());
    put(answer, &0_i16.to_be_bytes());
    put_text(answer, "log");
    answer.push(0);
    put(answer, &1_i32.to_be_bytes());
    put(answer, &0_i16.to_be_bytes());
    // The partition and its leader; one replica, which is in sync.
    [0_i32, 1, 1, 1, 1, 1].iter().for_each(|number| put(answer, &number.to_be_bytes()));
}

fn answer_ends(body: &[u8], log: &Mutex<Log>, answer: &mut Vec<u8>) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let isolation = body[4];
    let topic = usize::try_from(i16_at(body, 9)).expect("a length");
    let time = i64_at(body, 11 + topic + 8);
    let end = log.lagging.unwrap_or(if isolation == READ_COMMITTED { log.stable } else { log.high });
    if time == -1 && log.then_lagging.is_some() {
        log.lagging = log.then_lagging.take();
    }
    put(answer, &0_i32.to_be_bytes());
    put(answer, &1_i32.to_be_bytes());
    put_text(answer, "log");
    put(answer, &1_i32.to_be_bytes());
    put(answer, &0_i32.to_be_bytes());
    put(answer, &0_i16.to_be_bytes());
    put(answer, &(-1_i64).to_be_bytes());
    put(answer, &(if time == -2 { log.low } else { end }).to_be_bytes());
}

fn answer_fetch(body: &[u8], log: &Mutex<Log>, answer: &mut Vec<u8>) {
    let wait = u64::from(u32::from_be_bytes(body[4..8].try_into().expect("four bytes")));
    put(answer, &0_i32.to_be_bytes());
    // A fetch may ask for nothing, before the partition is assigned.
    if body[17..21] == [0; 4] {
        put(answer, &0_i32.to_be_bytes());
        return;
    }
    let topic = usize::try_from(i16_at(body, 21)).expect("a length");
    let offset = i64_at(body, 23 + topic + 8);
    let has_new = |log: &Log| offset < log.lagging.unwrap_or(log.stable) || offset < log.low || offset > log.high;
    if !has_new(&log.lock().unwrap_or_else(PoisonError::into_inner)) {
        std::thread::park_timeout(Duration::from_millis(wait));
    }
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    let end = log.lagging.unwrap_or(log.stable);
    put(answer, &1_i32.to_be_bytes());
    put_text(answer, "log");
    put(answer, &1_i32.to_be_bytes());
    put(answer, &0_i32.to_be_bytes());
    let is_out = offset < log.low || offset > log.high;
    put(answer, &(if is_out { OFFSET_OUT_OF_RANGE } else { 0 }).to_be_bytes());
    put(answer, &log.lagging.unwrap_or(log.high).to_be_bytes());
    put(answer, &end.to_be_bytes());
    put(answer, &i32::try_from(log.taken_back.len()).expect("few").to_be_bytes());
    for (producer, first) in &log.taken_back {
        put(answer, &producer.to_be_bytes());
        put(answer, &first.to_be_bytes());
    }
    let there = log.batches.iter().filter(|batch| !is_out && batch.last >= offset && batch.first < end);
    // One batch an answer, as from a server that has much to do.
    let bytes = there.take(1).flat_map(|batch| batch.bytes.iter().copied()).collect::<Vec<_>>();
    put(answer, &i32::try_from(bytes.len()).expect("small").to_be_bytes());
    put(answer, &bytes);
}
