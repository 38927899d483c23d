//! The structs that an eBPF object describes (BTF, `Documentation/bpf/btf.rst` of the kernel).

use std::collections::BTreeMap;

/// A member of a struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name.
    pub name: String,
    /// Offset in bytes.
    pub offset: usize,
}

/// A struct.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// Size in bytes.
    pub size: usize,
    /// Members in order.
    pub members: Vec<Member>,
}

const KIND_STRUCT: u32 = 4;
const MEMBER_LEN: usize = 12;

/// Every named struct of an object, by name.
///
/// # Panics
/// When the object has no readable BTF.
pub fn structs(object: &[u8]) -> BTreeMap<String, Struct> {
    let btf = section(object, ".BTF").expect("the object has BTF");
    let header = |at: usize| word(btf, at) as usize;
    let base = header(4);
    let (types, strings) = (base + header(8), base + header(16));
    let end = types + header(12);
    let name = |offset: u32| text(&btf[strings + offset as usize..]);
    let mut found = BTreeMap::new();
    let mut at = types;
    while at < end {
        let info = word(btf, at + 4);
        let (kind, count) = (info >> 24 & 31, (info & 0xffff) as usize);
        if kind == KIND_STRUCT && word(btf, at) != 0 {
            let members = (0..count).map(|i| at + 12 + i * MEMBER_LEN).map(|member| Member {
                name: name(word(btf, member)),
                offset: (word(btf, member + 8) & 0xff_ffff) as usize / 8,
            });
            let size = word(btf, at + 8) as usize;
            found.insert(name(word(btf, at)), Struct { size, members: members.collect() });
        }
        at += 12 + extra(kind, count);
    }
    found
}

/// Bytes behind the common part of a type.
fn extra(kind: u32, count: usize) -> usize {
    match kind {
        1 | 14 | 17 => 4,              // integer, variable, declaration tag
        3 => 12,                       // array
        4 | 5 | 15 | 19 => count * 12, // struct, union, section, 64-bit enum
        6 | 13 => count * 8,           // enum, function prototype
        _ => 0,
    }
}

/// Content of a section of a 64-bit little-endian ELF file.
fn section<'a>(elf: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let half = |at: usize| usize::from(u16::from_le_bytes([elf[at], elf[at + 1]]));
    let long = |at: usize| u64::from_le_bytes(elf[at..at + 8].try_into().expect("8 bytes")) as usize;
    let (table, size, count, names) = (long(40), half(58), half(60), half(62));
    let content = |index: usize| {
        let header = table + index * size;
        &elf[long(header + 24)..long(header + 24) + long(header + 32)]
    };
    let names = content(names);
    (0..count).find(|i| text(&names[word(elf, table + i * size) as usize..]) == wanted).map(content)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).expect("strings end with zero");
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
