//! `docs/commands.md`, from the table. With `UPDATE_GOLDEN=1` its test writes the file.

use super::help::usage;
use super::spec::{Group, Spec};
use super::table;

fn render() -> String {
    let mut text = String::from(
        "# Commands\n\n\
         Made from the command table; `UPDATE_GOLDEN=1 cargo test docs` writes it. The notation: `name` an \
         argument, `WORD` to be typed as it is, `[...]` may be left out, `<...>` must be there, `|` one or the other, \
         `...` may be repeated. Where Redis has a command, it means what Redis means by it.\n",
    );
    for group in Group::ALL {
        text += &format!("\n## {}\n", group.title());
        for spec in table::all().filter(|spec| spec.group == group) {
            text += &entry(spec);
        }
    }
    text
}

fn entry(spec: &Spec) -> String {
    let mut text = format!("\n### {}\n\n", spec.name);
    if spec.subcommands.is_empty() {
        text += &format!("    {}\n\n{}.", usage(spec, None), spec.summary);
        text += &format!(" Example: `{}`", spec.example);
        if spec.tail.is_some() {
            text += ". In the text dialect, the last argument takes the rest of the line";
        }
        return text + ".\n";
    }
    text += &format!("{}.\n\n", spec.summary);
    for sub in spec.subcommands {
        text += &format!("- `{}`: {}. Example: `{}`.\n", usage(sub, Some(spec)), sub.summary, sub.example);
    }
    text
}

#[test]
fn docs_commands_md_is_what_the_table_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/commands.md");
    let rendered = render();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        std::fs::write(path, &rendered).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == rendered, "docs/commands.md is not what the table says: UPDATE_GOLDEN=1 cargo test docs");
}
