//! Exact numbers of any size: what a `numeric` column holds.
//!
//! Whole numbers within 128 bits, which is nearly all of them, are kept in place; `bigdecimal` does the rest. No value
//! ever passes through a float.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::str::FromStr;

use bigdecimal::num_bigint::BigInt;
use bigdecimal::{BigDecimal, ToPrimitive, Zero};

use crate::model::json_text::shortest;
use crate::model::limits::{NUMERIC_DIGITS_AFTER_MAX, NUMERIC_DIGITS_BEFORE_MAX, NUMERIC_DIVISION_SCALE_MIN};

/// An exact integer or decimal.
///
/// Its text form is canonical: no exponent, no plus sign, no zeros that say nothing (`-0` is `0`, `1.50` is `1.5`).
#[derive(Clone)]
pub struct Numeric(Repr);

/// A whole number within 128 bits is always `Small`, so that equal numbers have equal forms.
#[derive(Clone)]
enum Repr {
    Small(i128),
    Big(Box<BigDecimal>),
}

/// Why there is no such number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NumericError {
    /// The text is not a decimal number.
    #[error("expected a decimal number, got {0:?}")]
    Syntax(String),
    /// More digits than Postgres keeps.
    #[error(
        "the number has more than {NUMERIC_DIGITS_BEFORE_MAX} digits before or {NUMERIC_DIGITS_AFTER_MAX} after the point"
    )]
    TooLong,
    /// A division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// A float that is no number.
    #[error("{0} is not a finite number")]
    NotFinite(String),
}

/// 10 to the power of so many digits after the point.
fn power_of_ten(scale: usize) -> Result<BigInt, NumericError> {
    if scale > NUMERIC_DIGITS_AFTER_MAX {
        return Err(NumericError::TooLong);
    }
    Ok(BigInt::from(10u8).pow(u32::try_from(scale).map_err(|_| NumericError::TooLong)?))
}

/// How many digits after the point a quotient has; none if it has no end.
fn even_scale(a: &BigInt, b: &BigInt) -> Option<usize> {
    let twos = |units: &BigInt| units.trailing_zeros().map_or(0, |twos| usize::try_from(twos).unwrap_or(usize::MAX));
    let (twos_a, twos_b) = (twos(a), twos(b));
    let (rest, fives_b) = without_fives(b >> twos_b);
    if !(a % rest).is_zero() {
        return None;
    }
    let (_, fives_a) = without_fives(a >> twos_a);
    Some(twos_b.saturating_sub(twos_a).max(fives_b.saturating_sub(fives_a)))
}

/// A number without its factors of five, and how many it had: by ever larger powers, and back.
fn without_fives(mut number: BigInt) -> (BigInt, usize) {
    let (mut power, mut count, mut powers) = (BigInt::from(5u8), 1, Vec::new());
    let mut found = 0;
    while (&number % &power).is_zero() {
        number /= &power;
        found += count;
        let next = &power * &power;
        powers.push((std::mem::replace(&mut power, next), count));
        count *= 2;
    }
    for (power, count) in powers.into_iter().rev() {
        if (&number % &power).is_zero() {
            number /= power;
            found += count;
        }
    }
    (number, found)
}

impl Numeric {
    /// Zero.
    pub const ZERO: Self = Self(Repr::Small(0));

    /// The number that the float's shortest decimal form names: `0.1` is one tenth. Of two forms that are as near, the even
    /// one: 64.000030517578125 is 64.00003051757812.
    ///
    /// # Errors
    /// The float is infinite or not a number.
    pub fn from_f64(value: f64) -> Result<Self, NumericError> {
        if !value.is_finite() {
            return Err(NumericError::NotFinite(value.to_string()));
        }
        shortest(value).parse()
    }

    /// The number of a text of hex digits; none if there is another character, no digit, or too many.
    pub(crate) fn from_hex(digits: &str) -> Option<Self> {
        /// Digits that always fit 128 bits with a sign.
        const SMALL_DIGITS_MAX: usize = 31;
        if digits.len() > NUMERIC_DIGITS_BEFORE_MAX || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        if digits.len() <= SMALL_DIGITS_MAX {
            return i128::from_str_radix(digits, 16).ok().map(Self::from);
        }
        let whole = BigInt::parse_bytes(digits.as_bytes(), 16)?;
        Self::from_big(BigDecimal::new(whole, 0)).checked_len().ok()
    }

    /// The value, if it is whole and fits 64 bits.
    pub fn to_i64(&self) -> Option<i64> {
        self.to_i128().and_then(|value| value.to_i64())
    }

    /// The value, if it is whole and fits 128 bits.
    pub fn to_i128(&self) -> Option<i128> {
        match &self.0 {
            Repr::Small(value) => Some(*value),
            Repr::Big(_) => None,
        }
    }

    /// The nearest float.
    pub fn to_f64(&self) -> f64 {
        match &self.0 {
            Repr::Small(value) => *value as f64,
            // The library's own way rounds twice.
            Repr::Big(value) => value.to_plain_string().parse().unwrap_or(f64::NAN),
        }
    }

    /// The number with so many digits after the point, rounded half away from zero.
    #[cfg(feature = "lua")]
    pub(crate) fn to_fixed(&self, digits: u16) -> String {
        self.to_big().with_scale_round(i64::from(digits), bigdecimal::RoundingMode::HalfUp).to_plain_string()
    }

    /// The quotient: exact where it comes out even, else rounded half away from zero. Then it has twenty digits after the
    /// point, or as many as the operands have, and twenty significant ones.
    ///
    /// # Errors
    /// The divisor is zero, or the quotient has more digits after the point than there may be.
    pub fn checked_div(&self, divisor: &Self) -> Result<Self, NumericError> {
        let (a, b) = self.aligned(divisor)?;
        let mut scale = self.scale().max(divisor.scale()).max(NUMERIC_DIVISION_SCALE_MIN);
        let shifted = &a * power_of_ten(scale)?;
        if (&shifted % &b).is_zero() {
            return Self::of_units(shifted / b, scale);
        }
        if let Some(scale) = even_scale(&a, &b) {
            return Self::of_units(a * power_of_ten(scale)? / b, scale);
        }
        let digits = |units: &BigInt| units.magnitude().to_string().len();
        scale = scale.max(NUMERIC_DIVISION_SCALE_MIN + digits(&b).saturating_sub(digits(&a)));
        let shifted = a * power_of_ten(scale)?;
        let doubled: BigInt =
            &shifted * 2 + if (shifted < BigInt::zero()) == (b < BigInt::zero()) { b.clone() } else { -b.clone() };
        Self::of_units(doubled / (b * 2), scale)
    }

    /// So many units of the last of so many digits after the point.
    fn of_units(units: BigInt, scale: usize) -> Result<Self, NumericError> {
        Ok(Self::from_big(BigDecimal::new(units, i64::try_from(scale).map_err(|_| NumericError::TooLong)?)))
    }

    /// The quotient rounded down to a whole number, as Lua's `//`.
    ///
    /// # Errors
    /// The divisor is zero.
    pub fn checked_floor_div(&self, divisor: &Self) -> Result<Self, NumericError> {
        let (a, b) = self.aligned(divisor)?;
        let quotient = &a / &b;
        let below = !(&quotient * &b - &a).is_zero() && (a < BigInt::zero()) != (b < BigInt::zero());
        Ok(Self::from_big(BigDecimal::new(if below { quotient - 1 } else { quotient }, 0)))
    }

    /// What remains of [`Numeric::checked_floor_div`]; it has the sign of the divisor, as Lua's `%`.
    ///
    /// # Errors
    /// The divisor is zero.
    pub fn checked_rem(&self, divisor: &Self) -> Result<Self, NumericError> {
        let quotient = self.checked_floor_div(divisor)?;
        Ok(self - &(&quotient * divisor))
    }

    /// The number itself, unless it has more digits than a `numeric` column takes.
    ///
    /// # Errors
    /// It has more.
    pub fn checked_len(self) -> Result<Self, NumericError> {
        let Repr::Big(value) = &self.0 else { return Ok(self) };
        let (digits, scale) = value.as_bigint_and_exponent();
        // A number of n bits has at least (n - 1) * log10(2) digits; cheap, and exact enough to guard the exact test.
        let digits_about = (digits.bits() as usize).saturating_mul(30_103) / 100_000;
        let after = usize::try_from(scale).unwrap_or(0);
        let before =
            if scale < 0 { digits_about + scale.unsigned_abs() as usize } else { digits_about.saturating_sub(after) };
        if before > NUMERIC_DIGITS_BEFORE_MAX || after > NUMERIC_DIGITS_AFTER_MAX {
            return Err(NumericError::TooLong);
        }
        Ok(self)
    }

    /// Digits after the point.
    fn scale(&self) -> usize {
        match &self.0 {
            Repr::Small(_) => 0,
            Repr::Big(value) => usize::try_from(value.as_bigint_and_exponent().1).unwrap_or(0),
        }
    }

    /// Both as whole numbers of the same unit; the second is not zero.
    fn aligned(&self, divisor: &Self) -> Result<(BigInt, BigInt), NumericError> {
        if divisor.is_zero() {
            return Err(NumericError::DivisionByZero);
        }
        let scale = i64::try_from(self.scale().max(divisor.scale())).map_err(|_| NumericError::TooLong)?;
        let units = |value: &Self| value.to_big().with_scale(scale).into_bigint_and_exponent().0;
        Ok((units(self), units(divisor)))
    }

    fn is_zero(&self) -> bool {
        matches!(self.0, Repr::Small(0))
    }

    fn to_big(&self) -> BigDecimal {
        match &self.0 {
            Repr::Small(value) => BigDecimal::from(*value),
            Repr::Big(value) => value.as_ref().clone(),
        }
    }

    fn from_big(value: BigDecimal) -> Self {
        let value = value.normalized();
        if value.as_bigint_and_exponent().1 <= 0
            && let Some(small) = value.to_i128()
        {
            return Self(Repr::Small(small));
        }
        Self(Repr::Big(Box::new(value)))
    }

    fn combine(
        &self,
        other: &Self,
        small: impl Fn(i128, i128) -> Option<i128>,
        big: impl Fn(BigDecimal, BigDecimal) -> BigDecimal,
    ) -> Self {
        if let (Repr::Small(a), Repr::Small(b)) = (&self.0, &other.0)
            && let Some(value) = small(*a, *b)
        {
            return Self(Repr::Small(value));
        }
        Self::from_big(big(self.to_big(), other.to_big()))
    }
}

impl Add for &Numeric {
    type Output = Numeric;
    fn add(self, other: Self) -> Numeric {
        self.combine(other, i128::checked_add, |a, b| a + b)
    }
}

impl Sub for &Numeric {
    type Output = Numeric;
    fn sub(self, other: Self) -> Numeric {
        self.combine(other, i128::checked_sub, |a, b| a - b)
    }
}

impl Mul for &Numeric {
    type Output = Numeric;
    fn mul(self, other: Self) -> Numeric {
        self.combine(other, i128::checked_mul, |a, b| a * b)
    }
}

impl Neg for &Numeric {
    type Output = Numeric;
    fn neg(self) -> Numeric {
        &Numeric::ZERO - self
    }
}

impl Add for Numeric {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        &self + &other
    }
}

impl Sub for Numeric {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        &self - &other
    }
}

impl PartialEq for Numeric {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Numeric {}

impl PartialOrd for Numeric {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Numeric {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Small(a), Repr::Small(b)) => a.cmp(b),
            _ => self.to_big().cmp(&other.to_big()),
        }
    }
}

impl Default for Numeric {
    fn default() -> Self {
        Self::ZERO
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Self {
        Self(Repr::Small(i128::from(value)))
    }
}

impl From<i128> for Numeric {
    fn from(value: i128) -> Self {
        Self(Repr::Small(value))
    }
}

impl FromStr for Numeric {
    type Err = NumericError;

    fn from_str(text: &str) -> Result<Self, NumericError> {
        if let Some(value) = small(text) {
            return Ok(Self(Repr::Small(value)));
        }
        check_decimal(text)?;
        let value = BigDecimal::from_str(text).map_err(|_| NumericError::Syntax(shorten(text)))?;
        Self::from_big(value).checked_len()
    }
}

/// A whole number of so few digits that an `i128` holds all such numbers. The parser of `i128` multiplies 128 bits for each
/// digit, this one 64.
fn small(text: &str) -> Option<i128> {
    const DIGITS_MAX: usize = 38;
    const CHUNK: usize = 19;
    let digits = text.strip_prefix('-').unwrap_or(text).as_bytes();
    if digits.is_empty() || digits.len() > DIGITS_MAX {
        return None;
    }
    let mut value = 0;
    for chunk in digits.chunks(CHUNK) {
        let (mut part, mut scale) = (0_u64, 1_u64);
        for byte in chunk {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                return None;
            }
            // 19 digits and 10^19 fit in 64 bits.
            (part, scale) = (part * 10 + u64::from(digit), scale * 10);
        }
        value = value * i128::from(scale) + i128::from(part);
    }
    Some(if text.len() > digits.len() { -value } else { value })
}

/// Refuses what is no decimal number, and one whose exponent alone would fill the memory.
fn check_decimal(text: &str) -> Result<(), NumericError> {
    let refused = || NumericError::Syntax(shorten(text));
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (digits, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_empty = whole.is_empty() && (fraction.is_empty() || !digits.contains('.'));
    let exponent_digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if is_empty
        || !all_digits(whole)
        || !all_digits(fraction)
        || exponent_digits.is_empty()
        || !all_digits(exponent_digits)
    {
        return Err(refused());
    }
    let exponent_max = (NUMERIC_DIGITS_BEFORE_MAX + NUMERIC_DIGITS_AFTER_MAX) as i64;
    let exponent: i64 = exponent.parse().map_err(|_| NumericError::TooLong)?;
    if exponent.abs() > exponent_max || digits.len() > 2 * exponent_max as usize {
        return Err(NumericError::TooLong);
    }
    Ok(())
}

fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Small(value) => value.fmt(f),
            Repr::Big(value) => f.write_str(&value.to_plain_string()),
        }
    }
}

impl fmt::Debug for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Numeric {
    /// As a string: a JSON reader that keeps numbers as floats would lose digits.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Numeric {
    /// From a string, or from a JSON number by its digits.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<serde_json::value::RawValue> = serde::Deserialize::deserialize(deserializer)?;
        let text = raw.get();
        let digits = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
        digits.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n(text: &str) -> Numeric {
        text.parse().expect(text)
    }

    #[test]
    fn text_is_canonical() {
        for (given, canonical) in [
            ("0", "0"),
            ("-0", "0"),
            ("+7", "7"),
            ("007", "7"),
            ("1.50", "1.5"),
            ("-0.0", "0"),
            ("1e3", "1000"),
            ("12.5e-3", "0.0125"),
            (".5", "0.5"),
            ("-5.", "-5"),
            ("1e40", "10000000000000000000000000000000000000000"),
            ("-170141183460469231731687303715884105728", "-170141183460469231731687303715884105728"),
            (
                "115792089237316195423570985008687907853269984665640564039457584007913129639935",
                "115792089237316195423570985008687907853269984665640564039457584007913129639935",
            ),
        ] {
            assert_eq!(n(given).to_string(), canonical, "{given}");
        }
    }

    #[test]
    fn whole_numbers_of_each_length_are_what_they_say() {
        for length in 1..=45 {
            let digits: String = "9081726354".chars().cycle().take(length).collect();
            let padded = format!("{}{digits}", "0".repeat(45 - length));
            for text in [digits.clone(), "9".repeat(length), format!("1{}", "0".repeat(length - 1)), padded] {
                let trimmed = text.trim_start_matches('0');
                assert_eq!(n(&text).to_string(), trimmed);
                assert_eq!(n(&format!("-{text}")).to_string(), format!("-{trimmed}"));
                let expected = text.parse::<i128>().ok().filter(|_| text.len() <= 38);
                assert_eq!(small(&text), expected, "{text}");
                assert_eq!(small(&format!("{text}x")), None);
            }
        }
    }

    #[test]
    fn what_is_no_number_or_too_long_is_refused() {
        for text in ["", "-", ".", "-.", "0x10", " 1", "1 ", "1e", "e5", ".e5", "NaN", "inf", "1_000", "١"] {
            assert!(matches!(text.parse::<Numeric>(), Err(NumericError::Syntax(_))), "{text}");
        }
        for text in ["1e999999999", "1e-999999999", "1e99999999999999999999"] {
            assert_eq!(text.parse::<Numeric>(), Err(NumericError::TooLong), "{text}");
        }
    }

    #[test]
    fn arithmetic_is_exact_across_the_edge_of_128_bits() {
        let max = n("170141183460469231731687303715884105727");
        let sum = &max + &n("1");
        assert_eq!(sum.to_string(), "170141183460469231731687303715884105728");
        assert_eq!(&sum - &n("1"), max);
        assert_eq!(
            (&max * &max).to_string(),
            "28948022309329048855892746252171976962977213799489202546401021394546514198529"
        );
        assert_eq!((&n("0.1") + &n("0.2")).to_string(), "0.3");
    }

    #[test]
    fn division_rounds_where_it_says() {
        for (a, b, quotient, floor, rest) in [
            ("10", "4", "2.5", "2", "2"),
            ("-7", "2", "-3.5", "-4", "1"),
            ("7", "-2", "-3.5", "-4", "-1"),
            ("1", "3", "0.33333333333333333333", "0", "1"),
            ("2", "3", "0.66666666666666666667", "0", "2"),
            ("5.5", "0.5", "11", "11", "0"),
        ] {
            assert_eq!(n(a).checked_div(&n(b)).expect(a).to_string(), quotient, "{a} / {b}");
            assert_eq!(n(a).checked_floor_div(&n(b)).expect(a).to_string(), floor, "{a} // {b}");
            assert_eq!(n(a).checked_rem(&n(b)).expect(a).to_string(), rest, "{a} % {b}");
        }
        assert_eq!(n("1").checked_div(&n("0.0")), Err(NumericError::DivisionByZero));
    }

    #[test]
    fn a_quotient_that_comes_out_even_is_exact_and_any_other_has_significant_digits() {
        for (a, b, quotient) in [
            ("1", "1000000000000000000000000", "0.000000000000000000000001"),
            ("89881.5675071766834251224549", "10", "8988.15675071766834251224549"),
            ("1", "-1048576000000", "-0.00000000000095367431640625"),
            ("999999999999999999999999", "1000000000000000000000000", "0.999999999999999999999999"),
            ("3", "30000000000000000000000", "0.0000000000000000000001"),
            ("0.0000000000000000000000001", "3", "0.000000000000000000000000033333333333333333333"),
            ("1", "7000", "0.00014285714285714285714"),
        ] {
            assert_eq!(n(a).checked_div(&n(b)).expect(a).to_string(), quotient, "{a} / {b}");
        }
        let small = format!("0.{}1", "0".repeat(16_382));
        assert_eq!(n(&small).checked_div(&n("10")), Err(NumericError::TooLong));
        assert_eq!(n(&small).checked_div(&n("3")), Err(NumericError::TooLong));
        assert_eq!(n(&small).checked_div(&n(&small)).expect("one").to_string(), "1");
        let fives = format!("{}", BigInt::from(5u8).pow(100_000));
        assert_eq!(n(&fives).checked_div(&n(&fives)).expect("one").to_string(), "1");
        assert_eq!(n("1").checked_div(&n(&fives)), Err(NumericError::TooLong));
    }

    #[test]
    fn a_float_is_the_nearest_one() {
        for digits in [
            "190031839320320618014740098223503072400",
            "1e300",
            "0.1000000000000000055511151231257827021181583404541015625",
        ] {
            assert_eq!(n(digits).to_f64(), digits.parse::<f64>().expect("a float"), "{digits}");
        }
        let of_hex = Numeric::from_hex("8fb764db13825de4ba9abbf154845c90").expect("hex");
        assert_eq!(of_hex.to_f64(), 1.910_318_393_203_206_3e38);
    }

    proptest! {
        /// A quotient that comes out even gives the dividend back; any other is as near as its last digit.
        #[test]
        fn quotients_are_exact_or_near(
            a in "-?[1-9][0-9]{0,40}(\\.[0-9]{1,30})?",
            (twos, fives, other) in (0..90u32, 0..60u32, prop_oneof![Just(1u32), Just(1), Just(3), Just(7), Just(11)]),
        ) {
            let (a, b) = (n(&a), BigInt::from(2u8).pow(twos) * BigInt::from(5u8).pow(fives) * other);
            let b = n(&b.to_string());
            let quotient = a.checked_div(&b).expect("a quotient");
            let rest = &a - &(&quotient * &b);
            // Whether it comes out even: of the divisor, 2 and 5 are the only factors that 10 has too.
            let (units, _) = a.aligned(&n("1")).expect("units");
            if (units % other).is_zero() {
                prop_assert_eq!(rest, Numeric::ZERO);
            } else {
                // Twenty significant digits.
                let bound = &rest * &n("200000000000000000000");
                prop_assert!(bound.to_big().abs() <= (&a * &n("10")).to_big().abs(), "{} / {} = {}", a, b, quotient);
                prop_assert!(quotient != Numeric::ZERO);
            }
        }
    }

    #[test]
    fn a_float_becomes_its_shortest_decimal() {
        assert_eq!(Numeric::from_f64(0.1).expect("finite").to_string(), "0.1");
        assert_eq!(Numeric::from_f64(1e22).expect("finite").to_string(), "10000000000000000000000");
        assert_eq!(Numeric::from_f64(2_097_153.0 / 32_768.0).expect("finite").to_string(), "64.00003051757812");
        assert!(Numeric::from_f64(f64::NAN).is_err());
    }
}
