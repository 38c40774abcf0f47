//! The database process: reads its configuration and serves until it is told to stop.

use clap::error::ErrorKind;
use kalamdb_instance::configuration::{Configuration, Reading};
use kalamdb_instance::{logging, server};

fn main() -> std::process::ExitCode {
    let configuration = match Configuration::read(std::env::args_os()) {
        Ok(Reading::Serve(configuration)) => *configuration,
        Ok(Reading::Print(text)) => {
            println!("{text}");
            return std::process::ExitCode::SUCCESS;
        }
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(error) => {
                let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
                let _ = error.print();
                return if is_help { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::from(2) };
            }
            Err(error) => {
                eprintln!("kalamdb-instance: {error:#}");
                return std::process::ExitCode::from(2);
            }
        },
    };
    logging::start(&configuration.log);
    match server::block_on(configuration) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            eprintln!("kalamdb-instance: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
