//! Files that a RUN needs.

use super::*;

fn missing(body: &str, files: &[&str]) -> Vec<(u32, String, String)> {
    only("run-missing-file", body, files)
        .into_iter()
        .map(|found| (found.line, found.message, found.hint.unwrap_or_default()))
        .collect()
}

#[test]
fn files_that_are_missing_are_named_with_the_line_to_add() {
    for (body, line, hint) in [
        (
            "WORKDIR /app\nRUN pip install -r requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN pip3 install --no-cache-dir -U pip -r requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN python3 -m pip install --requirement=requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN uv pip install -rrequirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN pip install -c constraints.txt x",
            3,
            "add `COPY constraints.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN [\"pip\", \"install\", \"-r\", \"requirements.txt\"]",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        ("WORKDIR /app\nRUN python3 -u -X dev src/train.py", 3, "add `COPY src/train.py src/` before line 3"),
        (
            "WORKDIR /app\nRUN set -ex && cd src && python ../run.sh",
            3,
            "add `COPY run.sh /app/` before line 3",
        ),
        ("WORKDIR /app\nRUN bash -ex run.sh", 3, "add `COPY run.sh ./` before line 3"),
        ("WORKDIR /app\nRUN ./run.sh && echo done", 3, "add `COPY run.sh ./` before line 3"),
        (
            "WORKDIR /app\nRUN bash -lc 'pip install -r requirements.txt'",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        ("WORKDIR /app\nRUN A=1 exec python run.sh", 3, "add `COPY run.sh ./` before line 3"),
        ("WORKDIR /app\nRUN npm ci", 3, "add `COPY package.json ./` before line 3"),
        ("WORKDIR /app\nRUN yarn", 3, "add `COPY package.json ./` before line 3"),
        ("WORKDIR /app\nRUN make -f build.mk all", 3, "add `COPY build.mk ./` before line 3"),
        (
            "WORKDIR /app\nRUN conda env create -f environment.yml",
            3,
            "add `COPY environment.yml ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN <<EOF\nset -e\npip install -r requirements.txt\nEOF",
            5,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN apt-get update && \\\n  # comment\n  pip install -r requirements.txt",
            5,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nENV F=requirements.txt\nRUN pip install -r $F",
            4,
            "add `COPY requirements.txt ./` before line 4",
        ),
        (
            "ARG F=requirements.txt\nWORKDIR /app\nRUN pip install -r \"${F}\"",
            4,
            "add `COPY requirements.txt ./` before line 4",
        ),
        (
            "WORKDIR /app\nRUN echo a > b.txt; pip install -r requirements.txt",
            3,
            "add `COPY requirements.txt ./` before line 3",
        ),
        (
            "WORKDIR /app\nRUN torchrun --nproc_per_node=2 src/train.py --x",
            3,
            "add `COPY src/train.py src/` before line 3",
        ),
        (
            "WORKDIR /app\nCOPY requirements.txt run.sh /other/\nRUN pip install -r requirements.txt",
            4,
            "add `COPY requirements.txt ./` before line 4, or run `pip install -r /other/requirements.txt` here",
        ),
        (
            "WORKDIR /app\nCOPY . /src\nRUN pip install -r requirements.txt",
            4,
            "change line 3 to `COPY . /app/`, or run `pip install -r /src/requirements.txt` here",
        ),
        (
            "COPY requirements.txt run.sh /app/\nRUN pip install -r /app/constraints.txt",
            3,
            "add `COPY constraints.txt /app/` before line 3",
        ),
    ] {
        let files = [
            "requirements.txt",
            "constraints.txt",
            "src/train.py",
            "run.sh",
            "package.json",
            "build.mk",
            "environment.yml",
        ];
        let found = missing(body, &files);
        assert_eq!(found.len(), 1, "{body}: {found:?}");
        assert_eq!((found[0].0, found[0].2.as_str()), (line, hint), "{body}");
    }
}

#[test]
fn files_that_are_there_are_not_missed() {
    for body in [
        "WORKDIR /app\nCOPY requirements.txt .\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt ./\nRUN pip install -r ./requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt /app\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt /app/requirements.txt\nRUN pip install -r requirements.txt",
        "COPY requirements.txt /app/\nWORKDIR /app\nRUN pip install -r requirements.txt",
        "COPY requirements.txt /app/\nRUN cd /app && pip install -r requirements.txt",
        "COPY requirements.txt /app/\nRUN (cd /app; pip install -r requirements.txt)",
        "COPY requirements.txt /tmp\nRUN pip install -r /tmp/requirements.txt",
        "WORKDIR /app\nCOPY . .\nRUN python src/train.py && ./run.sh",
        "WORKDIR /app\nCOPY src ./\nRUN python train.py",
        "WORKDIR /app\nCOPY src/ src/\nRUN cd src; python train.py",
        "WORKDIR /app\nCOPY req*.txt ./\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY [\"requirements.txt\", \"run.sh\", \"./\"]\nRUN pip install -r requirements.txt && sh run.sh",
        "WORKDIR /a\nWORKDIR b\nCOPY requirements.txt ../x/\nRUN pip install -r ../x/requirements.txt",
        "ENV D=/app\nWORKDIR $D\nCOPY requirements.txt $D/\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY <<x.py ./\nprint(1)\nx.py\nRUN python x.py",
        "WORKDIR /app\nCOPY <<EOF x.py\nprint(1)\nEOF\nRUN python x.py",
        "WORKDIR /app\nADD https://example.com/x.py ./\nRUN python x.py",
        "WORKDIR /app\nADD src.tar.gz .\nRUN python x.py",
        "WORKDIR /app\nRUN --mount=type=bind,source=requirements.txt,target=requirements.txt pip install -r requirements.txt",
        "WORKDIR /app\nRUN --mount=type=bind,target=/src pip install -r /src/requirements.txt && cd /src && ./run.sh",
        "WORKDIR /app\nRUN --mount=type=cache,target=/app pip install -r requirements.txt",
        // Made by an earlier command.
        "WORKDIR /app\nRUN echo 'x' > requirements.txt\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nRUN echo x | tee requirements.txt && pip install -r requirements.txt",
        "WORKDIR /app\nRUN curl -fsSLo get-pip.py https://x.org/get-pip.py && python get-pip.py",
        "WORKDIR /app\nRUN curl -O https://x.org/a/get-pip.py?x=1 && python get-pip.py",
        "WORKDIR /app\nRUN wget -q https://x.org/install.sh && bash install.sh",
        "WORKDIR /app\nRUN wget -qO install.sh https://x.org/ && bash install.sh",
        "WORKDIR /app\nRUN git clone --depth 1 https://x.org/a/repo.git && cd repo && ./configure && pip install -r requirements.txt",
        "WORKDIR /app\nRUN git clone https://x.org/a/repo code\nRUN python code/train.py",
        "WORKDIR /app\nRUN curl https://x.org/a.tgz | tar xz && ./install.sh",
        "WORKDIR /app\nRUN tar -xf /a.tar -C /app && ./install.sh",
        "WORKDIR /app\nRUN some-tool make things\nRUN python x.py",
        "WORKDIR /app\nRUN cp /usr/share/x.py . && python x.py",
        "WORKDIR /app\nRUN python -c 'open(\"x.py\", \"w\")'\nRUN python x.py",
        "WORKDIR /app\nRUN f() { echo; }; python x.py",
        // Guarded, unknown, or not a file of ours.
        "WORKDIR /app\nRUN if [ -f requirements.txt ]; then pip install -r requirements.txt; fi",
        "WORKDIR /app\nRUN [ -f x.txt ] && pip install -r x.txt",
        "WORKDIR /app\nRUN test -f x.txt && pip install -r x.txt || true",
        "WORKDIR /app\nRUN pip install -r x.txt || echo none",
        "WORKDIR /app\nRUN for f in *.txt; do pip install -r $f; done",
        "WORKDIR /app\nRUN pip install -r $WHICH",
        "WORKDIR /app\nRUN F=a.txt; pip install -r $F",
        "WORKDIR /app\nRUN pip install -r $(ls *.txt)",
        "WORKDIR /app\nRUN pip install -r https://x.org/requirements.txt",
        "WORKDIR /app\nRUN python -m pytest && python - <<EOF\nEOF\n",
        "WORKDIR /app\nRUN python /opt/tool/run.py && bash /usr/local/bin/x.sh",
        "WORKDIR /app\nRUN npm install -g typescript",
        "WORKDIR /app\nRUN cd $HOME && pip install -r requirements.txt",
        "WORKDIR $UNKNOWN\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nCOPY requirements.txt $UNKNOWN/\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nSHELL [\"python\", \"-c\"]\nRUN pip install -r requirements.txt",
        "WORKDIR /app\nRUN <<EOF\n#!/usr/bin/env python3\npip install -r x.txt\nEOF",
        "WORKDIR /app\nRUN echo 'pip install -r x.txt'",
        "WORKDIR /app\nRUN cat <<EOF > x.sh\npip install -r x.txt\nEOF\n",
        "ONBUILD RUN pip install -r requirements.txt",
        "# check=skip=run-missing-file\n",
    ] {
        let found = missing(body, &["requirements.txt", "src/train.py", "run.sh", "src.tar.gz"]);
        assert_eq!(found, [], "{body}");
    }
}

#[test]
fn hints_when_the_context_has_no_such_file() {
    let found = missing("WORKDIR /app\nRUN pip install -r requirement.txt", &["requirements.txt"]);
    assert!(found[0].2.ends_with("did you mean `requirements.txt`?"), "{found:?}");
    assert!(found[0].2.starts_with("the build context has no `requirement.txt` either"), "{found:?}");
    let found = missing("WORKDIR /app\nRUN python train.py", &["code/train.py"]);
    assert_eq!(found[0].2, "add `COPY code/train.py ./` before line 3");
    let text = "FROM python:3.12\nWORKDIR /app\nRUN pip install -r requirements.txt";
    let case = Case { files: &["requirements.txt"], ignore: "# all text\n*.txt\n", ..PLAIN };
    let hint = run(text, &case)[0].hint.clone().unwrap();
    assert!(hint.starts_with("`requirements.txt` is excluded by .dockerignore (line 2: `*.txt`)"), "{hint}");
    let text = "FROM scratch\nWORKDIR /app\nRUN python train.py";
    assert!(!run(text, &PLAIN)[0].message.contains("base image"));
}
