//! The object itself: the kernel takes every program, and both halves mean the same structures.

use reeve::director::abi;

use super::load;

#[test]
fn the_kernel_takes_every_program() {
    load(super::PROGRAMS, &[]);
}

/// FNV-1a, 64 bits, of a C text without comments and white space.
fn hash(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (code, comment) = rest.split_once("/*").unwrap_or((rest, "*/"));
        for byte in code.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        rest = comment.split_once("*/").expect("a comment that ends").1;
    }
    hash
}

#[test]
fn what_maps_mean_changes_by_decision_only() {
    assert_eq!(hash("a /* b */ c /* d */\n"), hash("ac"));
    assert_ne!(hash("#define A 1"), hash("#define A 2"));
    let text = include_str!("../../../bpf/abi.h");
    let recorded = text.split_once("ABI_TEXT 0x").expect("ABI_TEXT in bpf/abi.h").1;
    let recorded = recorded.split_whitespace().next().expect("its value");
    assert_eq!(
        recorded,
        format!("{:016x}", hash(text)),
        "bpf/abi.h was changed: does what older versions have pinned mean the same? Then write the right-hand number at \
         ABI_TEXT; if it does not, raise ABI_VERSION, and director::abi::VERSION, too"
    );
    assert!(text.contains(&format!("#define ABI_VERSION {}\n", abi::VERSION)));
}

#[test]
fn both_halves_lay_structures_out_alike() {
    use object::{Object, ObjectSection};
    let bytes = super::object();
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let section = file.section_by_name("layouts").expect("the section of layouts");
    let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("4 bytes")) as usize;
    let there: Vec<(String, usize, usize)> = section
        .data()
        .expect("its bytes")
        .chunks_exact(48)
        .map(|line| {
            let name = line[..40].split(|byte| *byte == 0).next().expect("a name");
            (String::from_utf8(name.to_vec()).expect("ASCII"), word(&line[40..44]), word(&line[44..]))
        })
        .collect();
    let mut here = Vec::new();
    for (name, size, fields) in abi::LAYOUTS {
        here.push(((*name).to_owned(), 0, *size));
        here.extend(fields.iter().map(|(field, offset, size)| (format!("{name}.{field}"), *offset, *size)));
    }
    assert_eq!(here, there);
}
