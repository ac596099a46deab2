//! Checks `tests/README.md`: every test that it names exists, and it has every section and invariant of `DESIGN.md`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const README: &str = include_str!("../README.md");
const DESIGN: &str = include_str!("../../DESIGN.md");

/// The cells of the rows of all tables from "From rule to test" on.
fn rows() -> Vec<Vec<&'static str>> {
    let (_, map) = README
        .split_once("## From rule to test")
        .expect("the map's heading");
    let lines = map.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| line.trim_matches('|').split('|').map(str::trim).collect());
    cells.collect()
}

/// The tests that a cell names: code with a path in it.
fn named(cell: &str) -> impl Iterator<Item = &str> {
    let code = cell.split('`').skip(1).step_by(2);
    code.filter(|code| code.contains("::"))
}

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether there is a function, or a line of a macro that makes one, of this path in the modules of this folder.
fn exists(folder: &Path, path: &str) -> bool {
    let mut names: Vec<_> = path.split("::").collect();
    let function = names.pop().expect("a name");
    let mut folder = folder.to_owned();
    // A path without a module names a function of the target's root.
    let mut source = fs::read_to_string(folder.join("main.rs")).unwrap_or_default();
    for name in names {
        let files = [format!("{name}.rs"), format!("{name}/mod.rs")];
        let read = |file: &String| fs::read_to_string(folder.join(file)).ok();
        if let Some(found) = files.iter().find_map(read) {
            source = found;
        } else if !source.contains(&format!("mod {name} {{")) {
            return false;
        }
        folder.push(name);
    }
    let forms = [
        format!("fn {function}("),
        // Generic over what it runs on.
        format!("fn {function}<"),
        format!("\n    {function}: "),
        // The first argument of a macro.
        format!("!({function},"),
        format!("!(\n    {function},"),
    ];
    forms.iter().any(|form| source.contains(form))
}

/// The folder of the tests that a cell in this column names, and their path in it.
fn resolve(column: usize, test: &str) -> (PathBuf, &str) {
    if let Some(rule) = test.strip_prefix("model::") {
        return (folder("model/tests"), rule);
    }
    if let Some(test) = test.strip_prefix("install::") {
        return (folder("install"), test);
    }
    match column {
        1 => (folder("scenarios"), test),
        2 => (folder("../idempotent-runtime/src/store/conformance"), test),
        _ => match test.split_once("::").expect("a path") {
            ("runtime", test) => (folder("../idempotent-runtime/src"), test),
            (root, test) => (folder(root), test),
        },
    }
}

#[test]
fn every_test_named_in_the_readme_exists() {
    let mut missing = Vec::new();
    for row in rows() {
        for (column, cell) in row.iter().enumerate() {
            for name in named(cell) {
                let (folder, test) = resolve(column, name);
                if !exists(&folder, test) {
                    missing.push(format!("{test} in {}", folder.display()));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "tests/README.md names tests that do not exist: {missing:#?}"
    );
}

#[test]
fn the_readme_has_every_section_of_the_contract() {
    let of_contract = |line: &&str| {
        let number = line
            .strip_prefix("## ")
            .and_then(|title| title.split_once(". "));
        number.is_some_and(|(number, _)| {
            number
                .parse()
                .is_ok_and(|number: u8| (1..=11).contains(&number))
        })
    };
    let sections: Vec<_> = DESIGN.lines().filter(of_contract).collect();
    assert_eq!(sections.len(), 11);
    for section in sections {
        let heading = format!("\n#{section}\n");
        assert!(README.contains(&heading), "tests/README.md lacks {section}");
    }
}

#[test]
fn the_readme_has_every_invariant_of_the_contract() {
    let numbers = (1..=15).map(|n| format!("I{n}"));
    let numbers: BTreeSet<_> = numbers.chain((1..=3).map(|n| format!("L{n}"))).collect();
    let in_design = |line: &str| Some(line.strip_prefix("| ")?.split_once(" | ")?.0.to_owned());
    let design: BTreeSet<_> = DESIGN.lines().filter_map(in_design).collect();
    let rows = rows();
    for number in numbers {
        assert!(design.contains(&number), "DESIGN.md lacks {number}");
        let row = rows
            .iter()
            .find(|row| row[0].split(' ').next() == Some(&number));
        let row = row.unwrap_or_else(|| panic!("tests/README.md lacks {number}"));
        let tests = row[1..].iter().flat_map(|cell| named(cell)).count();
        assert!(tests > 0, "{number} has no test");
    }
}
