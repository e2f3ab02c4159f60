//! `schema`, `completions` and `man`: what the program says of itself.

use super::args::{CompletionsArgs, Global, ManArgs, SchemaArgs, SchemaOf};
use super::error::{CliError, exit};
use super::main::{command, print};
use super::product::Product;

pub(super) fn schema(product: &dyn Product, args: &SchemaArgs) -> Result<u8, CliError> {
    let schema = match args.of {
        SchemaOf::Graph => crate::graph::schema(),
        SchemaOf::Config => product.config_schema(),
    };
    print(&format!("{schema:#}\n"))
}

pub(super) fn completions(product: &dyn Product, global: &Global, args: &CompletionsArgs) -> Result<u8, CliError> {
    let config = global.config.as_deref().unwrap_or(product.default_config());
    let mut command = product.completed(command(product), config);
    let mut out = Vec::new();
    clap_complete::generate(args.shell, &mut command, "taskrun", &mut out);
    print(&String::from_utf8_lossy(&out))
}

pub(super) fn man(product: &dyn Product, args: &ManArgs) -> Result<u8, CliError> {
    let failed = |error: std::io::Error| CliError::caused(exit::FAILED, "write the manual page", &error);
    let Some(folder) = &args.out else {
        let mut out = Vec::new();
        clap_mangen::Man::new(command(product)).render(&mut out).map_err(failed)?;
        return print(&String::from_utf8_lossy(&out));
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(command(product), folder).map_err(failed)?;
    print(&format!("{}\n", folder.display()))
}
