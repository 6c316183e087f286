//! A compiled script, taken apart and put together: the form that `string.dump` of the Lua that is built in gives. Any
//! other is refused.

/// How a compiled script begins: its version and format, and how wide its numbers are.
const HEAD: &[u8] = b"\x1bLua\x54\x00\x19\x93\r\n\x1a\n\x04\x08\x08\x78\x56\0\0\0\0\0\0";
/// Behind it, the number 370.5.
const HEAD_FLOAT: [u8; 8] = 370.5_f64.to_le_bytes();

/// The difference to the line before that says: the line is listed apart. A smaller difference is said as it is.
const LINE_APART: i8 = i8::MIN;
/// Instructions at most from one that is listed apart to the next.
const APART_EVERY: u32 = 128;
/// Bytes of a text that is a short one.
const SHORT_TEXT_MAX: usize = 40;

/// A constant of a function. Texts are without their length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Constant {
    Nil,
    False,
    True,
    Integer(i64),
    Float([u8; 8]),
    Text(Vec<u8>),
}

/// Where a function finds what it shares with the functions around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Upvalue {
    /// Whether it is a register of the function around it; else it is one of its upvalues.
    pub(super) is_register: bool,
    pub(super) at: u8,
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
}

/// A local, and the instructions between which it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) name: Vec<u8>,
    pub(super) first: usize,
    pub(super) last: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) source: Vec<u8>,
    pub(super) first_line: u32,
    pub(super) last_line: u32,
    pub(super) parameters: u8,
    pub(super) is_vararg: u8,
    pub(super) registers: u8,
    pub(super) code: Vec<u32>,
    pub(super) constants: Vec<Constant>,
    pub(super) upvalues: Vec<Upvalue>,
    pub(super) functions: Vec<Function>,
    /// The line of each instruction; none if the function has no lines.
    pub(super) lines: Vec<u32>,
    pub(super) locals: Vec<Local>,
}

/// Takes a compiled script apart; none if it is not of the Lua that is built in.
pub(super) fn read(code: &[u8]) -> Option<Function> {
    let rest = code.strip_prefix(HEAD)?.strip_prefix(&HEAD_FLOAT[..])?;
    let mut reader = Reader(rest);
    let upvalues = usize::from(reader.byte()?);
    let main = reader.function()?;
    (reader.0.is_empty() && main.upvalues.len() == upvalues).then_some(main)
}

/// Puts a script together; none if a number of it is too large for the form.
pub(super) fn write(main: &Function) -> Option<Vec<u8>> {
    let mut out = [HEAD, &HEAD_FLOAT].concat();
    out.push(u8::try_from(main.upvalues.len()).ok()?);
    write_function(main, &mut out)?;
    Some(out)
}

struct Reader<'c>(&'c [u8]);

impl<'c> Reader<'c> {
    fn take(&mut self, bytes: usize) -> Option<&'c [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn eight(&mut self) -> Option<[u8; 8]> {
        self.take(8)?.try_into().ok()
    }

    /// Seven bits a byte, the most significant first; the last byte has the eighth bit.
    fn number(&mut self) -> Option<usize> {
        let mut number: usize = 0;
        loop {
            let byte = self.byte()?;
            number = number.checked_mul(128)? | usize::from(byte & 0x7f);
            if byte & 0x80 != 0 {
                return Some(number);
            }
        }
    }

    fn line(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// A text behind its length and one; without one it is empty.
    fn text(&mut self) -> Option<Vec<u8>> {
        let len = self.number()?.saturating_sub(1);
        self.take(len).map(<[u8]>::to_vec)
    }

    /// As many of something as the number before them says.
    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        let mut list = Vec::new();
        for _ in 0..count {
            list.push(one(self)?);
        }
        Some(list)
    }

    fn function(&mut self) -> Option<Function> {
        let source = self.text()?;
        let (first_line, last_line) = (self.line()?, self.line()?);
        let (parameters, is_vararg, registers) = (self.byte()?, self.byte()?, self.byte()?);
        let words = self.number()?.checked_mul(4)?;
        let (words, _) = self.take(words)?.as_chunks::<4>();
        let code = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let constants = self.list(Self::constant)?;
        let mut upvalues = self.list(|reader| {
            let [is_register, at, kind] = reader.take(3)?.try_into().ok()?;
            Some(Upvalue { is_register: is_register != 0, at, kind, name: Vec::new() })
        })?;
        let functions = self.list(Self::function)?;
        let lines = self.lines(first_line)?;
        let local =
            |reader: &mut Self| Some(Local { name: reader.text()?, first: reader.number()?, last: reader.number()? });
        let locals = self.list(local)?;
        for (upvalue, name) in upvalues.iter_mut().zip(self.list(Self::text)?) {
            upvalue.name = name;
        }
        Some(Function {
            source,
            first_line,
            last_line,
            parameters,
            is_vararg,
            registers,
            code,
            constants,
            upvalues,
            functions,
            lines,
            locals,
        })
    }

    fn constant(&mut self) -> Option<Constant> {
        Some(match self.byte()? {
            0x00 => Constant::Nil,
            0x01 => Constant::False,
            0x11 => Constant::True,
            0x03 => Constant::Integer(i64::from_le_bytes(self.eight()?)),
            0x13 => Constant::Float(self.eight()?),
            0x04 | 0x14 => Constant::Text(self.text()?),
            _ => return None,
        })
    }

    fn lines(&mut self, first_line: u32) -> Option<Vec<u32>> {
        let count = self.number()?;
        let steps = self.take(count)?;
        let apart = self.list(|reader| Some((reader.number()?, reader.line()?)))?;
        let (mut apart, mut line) = (apart.into_iter(), first_line);
        let mut lines = Vec::with_capacity(steps.len());
        for (at, step) in steps.iter().enumerate() {
            line = match i8::from_le_bytes([*step]) {
                LINE_APART => apart.next().filter(|(of, _)| *of == at)?.1,
                step => line.checked_add_signed(i32::from(step))?,
            };
            lines.push(line);
        }
        Some(lines)
    }
}

fn write_number(mut number: usize, out: &mut Vec<u8>) {
    let mut bytes = [0; 10];
    let mut at = bytes.len() - 1;
    bytes[at] = (number & 0x7f) as u8 | 0x80;
    while number > 0x7f {
        number >>= 7;
        at -= 1;
        bytes[at] = (number & 0x7f) as u8;
    }
    out.extend_from_slice(&bytes[at..]);
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    write_number(text.len() + 1, out);
    out.extend_from_slice(text);
}

/// A text that stands for nothing if it is empty.
fn write_name(name: &[u8], out: &mut Vec<u8>) {
    if name.is_empty() { write_number(0, out) } else { write_text(name, out) }
}

fn write_function(function: &Function, out: &mut Vec<u8>) -> Option<()> {
    write_name(&function.source, out);
    write_number(function.first_line as usize, out);
    write_number(function.last_line as usize, out);
    out.extend([function.parameters, function.is_vararg, function.registers]);
    write_number(function.code.len(), out);
    for word in &function.code {
        out.extend(word.to_le_bytes());
    }
    write_number(function.constants.len(), out);
    for constant in &function.constants {
        write_constant(constant, out);
    }
    write_number(u8::try_from(function.upvalues.len()).ok()?.into(), out);
    for upvalue in &function.upvalues {
        out.extend([u8::from(upvalue.is_register), upvalue.at, upvalue.kind]);
    }
    write_number(function.functions.len(), out);
    for inside in &function.functions {
        write_function(inside, out)?;
    }
    write_lines(function, out);
    write_number(function.locals.len(), out);
    for local in &function.locals {
        write_name(&local.name, out);
        write_number(local.first, out);
        write_number(local.last, out);
    }
    write_number(function.upvalues.len(), out);
    for upvalue in &function.upvalues {
        write_name(&upvalue.name, out);
    }
    Some(())
}

fn write_constant(constant: &Constant, out: &mut Vec<u8>) {
    match constant {
        Constant::Nil => out.push(0x00),
        Constant::False => out.push(0x01),
        Constant::True => out.push(0x11),
        Constant::Integer(value) => {
            out.push(0x03);
            out.extend(value.to_le_bytes());
        }
        Constant::Float(value) => {
            out.push(0x13);
            out.extend(value);
        }
        Constant::Text(text) => {
            out.push(if text.len() <= SHORT_TEXT_MAX { 0x04 } else { 0x14 });
            write_text(text, out);
        }
    }
}

fn write_lines(function: &Function, out: &mut Vec<u8>) {
    let (mut apart, mut since, mut before) = (Vec::new(), 0, function.first_line);
    write_number(function.lines.len(), out);
    for (at, line) in function.lines.iter().enumerate() {
        let step = i8::try_from(i64::from(*line) - i64::from(before)).ok().filter(|step| *step != LINE_APART);
        let step = match step {
            Some(step) if since < APART_EVERY => {
                since += 1;
                step
            }
            _ => {
                apart.push((at, *line));
                since = 1;
                LINE_APART
            }
        };
        out.extend(step.to_le_bytes());
        before = *line;
    }
    write_number(apart.len(), out);
    for (at, line) in apart {
        write_number(at, out);
        write_number(line as usize, out);
    }
}

#[cfg(test)]
mod tests {
    use mlua::Lua;

    use super::*;

    fn compiled(text: &str) -> Vec<u8> {
        Lua::new().load(text).set_name("@script.lua").into_function().expect("a script").dump(false)
    }

    #[test]
    fn what_is_taken_apart_is_put_together_as_it_was() {
        let long = "x".repeat(300);
        let many: String = (0..500).map(|at| format!("t.a{at} = {at} * 1.5\n")).collect();
        let far = "\n".repeat(400);
        for text in [
            "return 1".to_owned(),
            "local a <const>, b <close> = 1, nil; return -1, 2.5, nil, true, false, 'é', '', ...".into(),
            format!("local s = '{long}' local t = {{}} function t.{long}() return s, t end"),
            format!("local t = {{}}\n{many}\n{far}t.last = function(...)\n{far}return t, ... end"),
            "for i = 1, 3 do local n = 0 print(function() n = n + i return _ENV end) end goto e ::e::".into(),
            include_str!("../kinds.lua").replace("local <const>", "local"),
        ] {
            let code = compiled(&text);
            let function = read(&code).expect("the Lua that is built in");
            assert_eq!(write(&function).expect("a form"), code, "{text}");
        }
    }

    #[test]
    fn other_code_is_refused() {
        let code = compiled("local a = 1 return function() return a, 'text', 1.5 end");
        for end in 0..code.len() {
            assert!(read(&code[..end]).is_none(), "{end}");
        }
        assert!(read(&[code.as_slice(), b"x"].concat()).is_none());
        assert!(read(b"\x1bLua\x55").is_none());
    }
}
