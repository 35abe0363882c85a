//! What applications do with drivers of Rust. The driver's name and the shop's DSN are the arguments.
mod diesel_smoke;
mod sqlx_smoke;
mod tokio_smoke;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn check<A: PartialEq<B> + std::fmt::Debug, B: std::fmt::Debug>(what: &str, got: A, want: B) {
    assert!(got == want, "{what}: {got:?}, want {want:?}");
    println!("ok {what}");
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    match args[1].as_str() {
        "tokio-postgres" => tokio_smoke::run(&args[2]).await?,
        "sqlx" => sqlx_smoke::run(&args[2]).await?,
        "diesel-async" => diesel_smoke::run(&args[2]).await?,
        other => return Err(format!("no driver {other}").into()),
    }
    println!("done");
    Ok(())
}
