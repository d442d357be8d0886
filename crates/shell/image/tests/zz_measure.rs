mod common;
#[test]
fn measure() {
    let w = common::World::new();
    let t = std::time::Instant::now();
    let b = w
        .store
        .build_rootfs(
            "m:1",
            std::path::Path::new("/usr/lib/x86_64-linux-gnu"),
            &image::BuildOptions::default(),
        )
        .unwrap();
    println!("MEASURE build {} B {:?}", b.image.size_b, t.elapsed());
    let t = std::time::Instant::now();
    let p = w.store.prepare(&b.image.digest).unwrap();
    println!("MEASURE prepare {:?} entries {}", t.elapsed(), common::snapshot(&p.lower[0]).len());
    let t = std::time::Instant::now();
    w.store.prepare(&b.image.digest).unwrap();
    println!("MEASURE again {:?}", t.elapsed());
    let t = std::time::Instant::now();
    let mut v = Vec::new();
    w.store.save("m:1", &mut v).unwrap();
    println!("MEASURE save {:?}", t.elapsed());
    let w2 = common::World::new();
    let t = std::time::Instant::now();
    w2.store.load_reader(&mut v.as_slice(), None).unwrap();
    println!("MEASURE load {:?}", t.elapsed());
}
