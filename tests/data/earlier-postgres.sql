CREATE SCHEMA forebay;
CREATE SCHEMA old;
CREATE TABLE forebay.entities (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    entity text NOT NULL COLLATE pg_catalog."C",
    columns text NOT NULL
);
CREATE TABLE forebay.history (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    batch bigint NOT NULL,
    before bigint NOT NULL,
    last_block bigint,
    head text NOT NULL,
    rows bytea NOT NULL
);
ALTER TABLE ONLY forebay.history ALTER COLUMN rows SET STORAGE EXTERNAL;
CREATE TABLE forebay.pipelines (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    format bigint NOT NULL,
    batch bigint NOT NULL,
    block bigint,
    block_events bigint NOT NULL,
    blocks bigint NOT NULL,
    events bigint NOT NULL,
    has_snapshots boolean NOT NULL,
    committed_at timestamp with time zone
);
CREATE TABLE forebay.regions (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    region text NOT NULL COLLATE pg_catalog."C",
    block bigint NOT NULL,
    events bigint NOT NULL,
    seq bigint NOT NULL,
    snapshot_block bigint
);
CREATE TABLE forebay.snapshots (
    pipeline text NOT NULL COLLATE pg_catalog."C",
    region text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    seq bigint NOT NULL,
    block bigint NOT NULL,
    generated_at timestamp with time zone NOT NULL,
    hash text NOT NULL,
    doc json NOT NULL,
    published_at timestamp with time zone
);
CREATE TABLE old.product (
    region text NOT NULL COLLATE pg_catalog."C",
    id text NOT NULL COLLATE pg_catalog."C",
    revenue numeric,
    sold bigint
);
INSERT INTO forebay.entities VALUES ('old', 'product', 'revenue numeric, sold bigint');
INSERT INTO forebay.history VALUES ('old', 2, 1, 4, '{"base":{"block":2,"block_events":1,"blocks":2,"events":3},"blocks":[{"block":3,"events":1},{"block":4,"events":1}],"touches":[{"block":3,"region":"north","events":1,"before":2},{"block":4,"region":"south","events":1,"before":1}]}', '\x0700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e74050000006e6f727468180000000300000000000000030000006e75740000000000000000000700000070726f647563741c000000726576656e7565206e756d657269632c20736f6c6420626967696e7405000000736f757468380000000400000000000000030000007465610100000000000000000000000000000000000000000500000000000000000000000100000000000000');
INSERT INTO forebay.pipelines VALUES ('old', 1, 2, 4, 1, 4, 5, true, '2026-11-28 22:50:06.971+00');
INSERT INTO forebay.regions VALUES ('old', 'north', 3, 3, 2, 4);
INSERT INTO forebay.regions VALUES ('old', 'south', 4, 2, 1, 4);
INSERT INTO forebay.snapshots VALUES ('old', 'north', 'north.1.fbc0bb539da89125', 1, 1, '2026-11-28 22:50:06.925+00', 'fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc', '{"sold":1}', NULL);
INSERT INTO forebay.snapshots VALUES ('old', 'south', 'south.1.fbc0bb539da89125', 1, 1, '2026-11-28 22:50:06.925+00', 'fbc0bb539da891258c556766485b3641814179cbee596f18483d1a58ae4270dc', '{"sold":1}', NULL);
INSERT INTO forebay.snapshots VALUES ('old', 'north', 'north.2.ae65354f092f4f5c', 2, 4, '2026-11-28 22:50:06.926+00', 'ae65354f092f4f5c55379d4481e309cd22f904399e644925d535c68b880c1910', '{"sold":2}', NULL);
INSERT INTO old.product VALUES ('north', 'nut', 2, 1);
INSERT INTO old.product VALUES ('north', 'tea', 8, 2);
INSERT INTO old.product VALUES ('south', 'tea', 10, 2);
ALTER TABLE ONLY forebay.entities
    ADD CONSTRAINT entities_pkey PRIMARY KEY (pipeline, entity);
ALTER TABLE ONLY forebay.history
    ADD CONSTRAINT history_pkey PRIMARY KEY (pipeline, batch);
ALTER TABLE ONLY forebay.pipelines
    ADD CONSTRAINT pipelines_pkey PRIMARY KEY (pipeline);
ALTER TABLE ONLY forebay.regions
    ADD CONSTRAINT regions_pkey PRIMARY KEY (pipeline, region);
ALTER TABLE ONLY forebay.snapshots
    ADD CONSTRAINT snapshots_pkey PRIMARY KEY (pipeline, region, seq);
ALTER TABLE ONLY old.product
    ADD CONSTRAINT product_pkey PRIMARY KEY (region, id);
CREATE INDEX snapshots_age ON forebay.snapshots USING btree (pipeline, generated_at);
CREATE UNIQUE INDEX snapshots_id ON forebay.snapshots USING btree (pipeline, id);
CREATE INDEX "product.sold" ON old.product USING btree (region, sold, id);
