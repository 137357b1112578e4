use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fleet::crew::{Job, RedisServer, Sharing};
use fleet::{demo, worker};

#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// One process of the fleet
    #[command(hide = true)]
    Worker(Job),
}

fn main() -> Result<()> {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match args.command {
        Some(Command::Worker(job)) => worker::run(&job),
        None => {
            let redis = RedisServer::start()?.context("no redis-server")?;
            let me = std::env::current_exe()?;
            for sharing in [Sharing::Unshared, Sharing::Local, Sharing::Both] {
                println!(
                    "{sharing:?}: {}",
                    demo::stampede(&me, &redis.url(), sharing)?
                );
            }
            Ok(())
        }
    }
}
