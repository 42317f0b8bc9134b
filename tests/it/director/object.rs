//! The object itself: the kernel takes every program, and both halves mean the same structures.

use reeve::director::abi;

use super::load;

#[test]
fn the_kernel_takes_every_program() {
    load(super::PROGRAMS, &[]);
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
