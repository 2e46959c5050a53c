use super::*;
use crate::cli::{Request, parse};

#[test]
fn a_disk_that_does_not_answer_is_named_and_not_waited_for() {
    const HOUR_NS: &str = "3600000000000";
    let drive = format!("driver=null-co,latency-ns={HOUR_NS},if=none,id=d0");
    let line = ["-kernel", "k", "-display", "none", "-drive", &drive];
    let Ok(Request::Run(config)) = parse(line.map(Into::into)) else {
        panic!("{line:?}")
    };
    let executor = exec::Executor::new(exec::Config::default()).unwrap();
    let closed = executor.block_on(async {
        let disks = Disks::open(&config, &Sandbox::off()).await.unwrap();
        disks
            .close(Instant::now() + Duration::from_millis(20))
            .await
    });
    assert_eq!(
        closed.unwrap_err().to_string(),
        "not at rest after 10 s: flushing and closing d0"
    );
}
