//! A seeded chain of token transfers, and the balances that must come of it.

#![allow(dead_code, missing_docs, reason = "the example and the benches share it, and use different parts")]

use std::collections::BTreeMap;
use std::io::Write;

/// What a chain is made of. The same numbers make the same chain, on every machine.
#[derive(Debug, Clone, Copy)]
pub struct Chain {
    /// Events.
    pub transfers: u64,
    /// Accounts that they go between, for each token.
    pub accounts: u64,
    /// Contracts: each is a region.
    pub tokens: u64,
    /// Transfers in a block.
    pub a_block: u64,
    pub seed: u64,
}

impl Default for Chain {
    fn default() -> Self {
        Self { transfers: 200_000, accounts: 10_000, tokens: 1, a_block: 10, seed: 20 }
    }
}

/// One transfer; accounts and tokens by number.
#[derive(Debug, Clone, Copy)]
pub struct Transfer {
    pub token: u64,
    pub from: u64,
    pub to: u64,
    /// In the smallest unit of the token, 10^-18.
    pub value: u128,
}

impl Chain {
    /// The transfers in order.
    pub fn each(self) -> impl Iterator<Item = Transfer> {
        let mut dice = Dice(self.seed);
        (0..self.transfers).map(move |_| Transfer {
            token: dice.below(self.tokens),
            from: dice.below(self.accounts),
            to: dice.below(self.accounts),
            // Up to 1,000 tokens: more than 64 bits hold.
            value: u128::from(dice.below(1000)) * 10_u128.pow(18) + u128::from(dice.below(10_u64.pow(18))),
        })
    }

    /// Writes the events as NDJSON.
    pub fn write(self, out: &mut impl Write) -> std::io::Result<()> {
        for (number, Transfer { token, from, to, value }) in (0..).zip(self.each()) {
            let (block, log_index) = (number / self.a_block + 1, number % self.a_block);
            let (token, from, to) = (address("token", token), address("account", from), address("account", to));
            writeln!(
                out,
                "{{\"block\":{block},\"log_index\":{log_index},\"token\":\"{token}\",\"from\":\"{from}\",\"to\":\"{to}\",\"value\":\"{value}\"}}"
            )?;
        }
        Ok(())
    }

    /// The balances after the last transfer, by token and account: how they changed, since accounts begin with none.
    pub fn balances(self) -> BTreeMap<(String, String), i128> {
        let mut numbers: BTreeMap<(u64, u64), i128> = BTreeMap::new();
        for Transfer { token, from, to, value } in self.each() {
            let value = value.cast_signed();
            *numbers.entry((token, from)).or_default() -= value;
            *numbers.entry((token, to)).or_default() += value;
        }
        let named = |((token, account), balance)| ((address("token", token), address("account", account)), balance);
        numbers.into_iter().map(named).collect()
    }
}

/// An address of 20 bytes, as chains write them: always the same for a number of a kind.
pub fn address(kind: &str, number: u64) -> String {
    let kind = kind.bytes().fold(0, |sum, byte| sum * 31 + u64::from(byte));
    let mut dice = Dice(kind.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let (a, b, c) = (dice.next(), dice.next(), dice.next() as u32);
    format!("0x{a:016x}{b:016x}{c:08x}")
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): a few operations, the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // Even enough for bounds that are small against 2^64.
        self.next() % bound.max(1)
    }
}
